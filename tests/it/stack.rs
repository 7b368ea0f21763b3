//! Where the real servers are that tests use: the environment says it, or what `tests/stack up` has written.

use std::path::Path;

/// The brokers of Kafka, `host:port[,…]`.
pub fn kafka() -> String {
    server("TALLYMARK_TEST_KAFKA")
}

/// The brokers' further listeners with this number, `PROXY=BROKER[,…]`: clients of a broker there are sent to the proxies.
pub fn kafka_links(number: usize) -> String {
    server(&format!("TALLYMARK_TEST_KAFKA_LINKS_{number}"))
}

/// The jars that Kafka itself is started from.
pub fn kafka_classpath() -> String {
    server("TALLYMARK_TEST_KAFKA_CLASSPATH")
}

/// The Java to start it with.
pub fn java() -> String {
    server("TALLYMARK_TEST_JAVA")
}

/// The nodes of the CQL store, `host:port[,…]`.
pub fn scylla() -> String {
    server("TALLYMARK_TEST_SCYLLA")
}

/// The hot view's server, `host:port`.
pub fn redis() -> String {
    server("TALLYMARK_TEST_REDIS")
}

fn server(variable: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/stack/env");
    let written = || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix(variable)?.strip_prefix('=')?.to_owned()))
    };
    std::env::var(variable).ok().or_else(written).unwrap_or_else(|| {
        panic!("{variable} is not set, and {} does not name it: run `tests/stack up`", file.display())
    })
}
