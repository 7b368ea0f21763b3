//! The scripts: for what must be decided in the server, and is not on the way of an acknowledgement.

use std::sync::LazyLock;

use redis::{Cmd, Script};

/// A script and the name under which a server knows it.
pub(super) struct Known {
    code: &'static str,
    hash: String,
}

/// Every script, as [`Which`] numbers them.
static SCRIPTS: LazyLock<[Known; 8]> = LazyLock::new(|| {
    [
        include_str!("scripts/publish.lua"),
        include_str!("scripts/finish.lua"),
        include_str!("scripts/bound.lua"),
        include_str!("scripts/leave.lua"),
        include_str!("scripts/published.lua"),
        include_str!("scripts/from.lua"),
        include_str!("scripts/lost.lua"),
        include_str!("scripts/announce.lua"),
    ]
    .map(|code| Known { code, hash: Script::new(code).get_hash().to_owned() })
});

/// Which script.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    Publish,
    Finish,
    Bound,
    Leave,
    Published,
    From,
    Lost,
    Announce,
}

impl Which {
    /// A call of the script with so many keys; they and the arguments are still to come.
    pub(super) fn call(self, keys: usize) -> Cmd {
        let mut cmd = Cmd::with_capacity(3 + 4 * keys, 64 + 96 * keys);
        cmd.arg("EVALSHA").arg(&SCRIPTS[self as usize].hash).arg(keys);
        cmd
    }
}

/// The commands that make a server know every script.
pub(super) fn loads() -> impl ExactSizeIterator<Item = Cmd> {
    SCRIPTS.iter().map(|script| {
        let mut cmd = Cmd::new();
        cmd.arg("SCRIPT").arg("LOAD").arg(script.code);
        cmd
    })
}
