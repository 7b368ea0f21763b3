//! Stand-ins for the commands that talk to a running instance, until their rooms are merged.

use clap::Args;

use crate::{
    config::Config,
    exit::{Exit, Failure},
};

macro_rules! pending {
    ($($name:ident),*) => {$(
        #[derive(Debug, Args)]
        pub struct $name {}

        impl $name {
            /// Does it.
            pub fn execute(self, _config: &Config) -> Result<Exit, Failure> {
                Err(Failure::failed(concat!("`", stringify!($name), "` is not in this build yet")))
            }
        }
    )*};
}

pending!(Send, Get, Lag);
