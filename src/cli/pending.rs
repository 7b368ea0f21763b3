//! Stand-ins for the commands that talk to a running instance, until their rooms are merged.

use clap::Args;

use crate::{
    config::Config,
    exit::{Exit, Failure},
};

macro_rules! pending {
    ($($name:ident: $command:literal),*) => {$(
        #[derive(Debug, Args)]
        #[command(after_help = concat!("Examples:\n  tallymark ", $command))]
        pub struct $name {}

        impl $name {
            /// Does it.
            pub fn execute(self, _config: &Config) -> Result<Exit, Failure> {
                Err(Failure::failed(concat!("`tallymark ", $command, "` is not in this build yet")))
            }
        }
    )*};
}

pending!(Send: "send items.ndjson", Get: "get page_views", Lag: "lag --check");
