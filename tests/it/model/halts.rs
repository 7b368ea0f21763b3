//! Halts: which of them a lane may have, and how they are told apart.

/// Which halts a lane may have, and whether it must.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    pub kinds: Vec<&'static str>,
    pub must: bool,
    /// It was remedied: the lane may be halted still, and goes on.
    pub remedied: bool,
}

/// A halt's name, from what it says of itself.
pub fn kind_of(reason: &str) -> &'static str {
    const KINDS: &[(&str, &str)] = &[
        ("the log starts at", "Gap"),
        ("the log ends at", "Cut"),
        ("the record at", "Replaced"),
        ("the log has been cut", "Replaced"),
        ("the log from", "Stamp"),
        ("a stored row names", "Base"),
        ("the store holds this topic", "Recreated"),
        ("was routed for", "Epoch"),
        ("was acknowledged at", "Claim"),
        ("the log went from", "Missing"),
        ("is newer than this program", "Newer"),
        ("it is still in the log", "Unreadable"),
        ("the store refuses", "Store"),
        ("the log cannot be read", "Log"),
    ];
    KINDS.iter().find(|(words, _)| reason.contains(words)).map_or("Unknown", |(_, kind)| kind)
}
