//! What this process is called among its peers.

/// Its machine and its number there, e.g. `host-4711`.
pub fn name() -> String {
    let host =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    let host = host.unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    format!("{host}-{}", std::process::id())
}
