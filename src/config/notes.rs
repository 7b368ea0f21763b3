//! What is said about each setting, and what its value may be: the part of the reference that types cannot tell.
//!
//! A setting is known because it is a field of some component's `Options`; its line here gives the help of
//! `docs/configuration.md` and the bounds that are checked before anything is started. A field without a line works, and
//! a test asks for the line.

/// What a value may be, beyond its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Whatever the type takes.
    Free,
    /// A whole number from the first to the second.
    Between(i64, i64),
    /// A duration or a size that is not zero.
    Positive,
    /// A size of at least the first and at most the second, in bytes.
    Sized(u64, u64),
    /// One of these, or a list of some of these.
    OneOf(&'static [&'static str]),
}

/// What is said about one setting.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// Its key.
    pub key: &'static str,
    /// What its value may be.
    pub bound: Bound,
    /// What it does.
    pub help: &'static str,
}

/// The note of a setting that has none.
pub const SILENT: Note = Note { key: "", bound: Bound::Free, help: "" };

const fn note(key: &'static str, bound: Bound, help: &'static str) -> Note {
    Note { key, bound, help }
}

use Bound::{Between, Free, OneOf, Positive, Sized};

/// Counts that become the capacity of a queue or the permits of a semaphore.
const COUNT: Bound = Between(1, 1_000_000);
/// Counts of things in memory.
const MANY: Bound = Between(1, 1_000_000_000);

/// Every setting's note, in the order of the reference.
pub const NOTES: &[Note] = &[
    note("listen", Free, "Where ingest and queries are served. Port 0: any free one; the bound address is logged."),
    note("admin_listen", Free, "Where health, `/metrics`, lag and the dashboard are served."),
    note(
        "log_format",
        OneOf(crate::telemetry::Format::NAMES),
        "How log lines are written to stderr. `auto`: text on a terminal, JSON otherwise.",
    ),
    note(
        "log_level",
        Free,
        "Which log lines are written: `error`, `warn`, `info`, `debug`, `trace` or `off`, and `target=level` after commas, e.g. `info,fjall=warn`.",
    ),
    note(
        "namespace",
        Free,
        "The namespace that the commands `send` and `get` name in their requests. The flag is theirs alone; unset, they leave it to the server.",
    ),
    note(
        "log.url",
        Free,
        "The log: `embedded:DIR` or `kafka://[user:password@]host:port[,host:port]/topic`; user and password percent-encoded.",
    ),
    note(
        "log.partitions",
        Between(0, 1_024),
        "Partitions of a log that is made now; 0: 8, of an embedded log 4. An existing log keeps its own.",
    ),
    note(
        "log.retention_bytes",
        Positive,
        "Bytes that the embedded log keeps over all partitions; never past what a lane still needs.",
    ),
    note(
        "log.retention",
        Positive,
        "How long a topic that is made now keeps its records; at least twice `dedup.window`.",
    ),
    note(
        "log.replication",
        Between(1, 32),
        "Copies of each partition of a topic that is made now. With 3 or more, two must have a record before it is acknowledged.",
    ),
    note("log.group", Free, "The consumer group of the workers; empty: called as the topic."),
    note(
        "log.append_timeout",
        Positive,
        "How long an append to Kafka may take; beyond it: 503, and it is unknown whether it was appended.",
    ),
    note("log.request_timeout", Positive, "How long a question to the brokers may take, at start too."),
    note(
        "log.buffer",
        Positive,
        "Bytes of packs that are handed to the brokers and not acknowledged; beyond it appends wait.",
    ),
    note(
        "log.connections",
        Between(1, 64),
        "Connections to each broker that an ingest appends over; a broker works on one request of a connection at a time.",
    ),
    note(
        "log.identity_interval",
        Positive,
        "How often it is checked that the topic was not deleted and made anew, and has its partitions still.",
    ),
    note("log.tls", Free, "Whether the connections to the brokers are encrypted."),
    note(
        "log.ca_file",
        Free,
        "PEM file of the authorities that the brokers' certificates are checked against; empty: the system's.",
    ),
    note("log.cert_file", Free, "PEM file of this client's certificate, where the brokers ask for one."),
    note("log.key_file", Free, "PEM file of that certificate's private key."),
    note(
        "log.sasl_mechanism",
        OneOf(crate::log::kafka::SASL_MECHANISMS),
        "How to log in to the brokers with the user and password of `log.url`.",
    ),
    note("store.url", Free, "The store: `embedded:DIR` or `scylla://[user:password@]host:port[,…]/keyspace`."),
    note("store.shards", Between(1, i32::MAX as i64), "Shards of the hash space; fixed when the store is made."),
    note("store.batch_rows", Between(1, 65_535), "Most rows of one mutation."),
    note("store.in_flight", Between(1, 65_536), "Mutations in flight, over all lanes of the process."),
    note(
        "store.replication",
        Between(1, 32),
        "Copies of every row in a keyspace that `schema apply` makes; an existing keyspace keeps its own. 1: a trial on one node.",
    ),
    note(
        "store.datacenter",
        Free,
        "The datacenter whose quorum is asked, the same for every process. `auto`: the only one; where the store has several, it must be named.",
    ),
    note(
        "store.timeout",
        Positive,
        "How long one request to the store's servers may take; beyond it the request is tried again.",
    ),
    note("hot.url", Free, "The hot view: `memory:`, `redis://…`, `rediss://…`, `redis-cluster://…` or `none:`."),
    note("hot.timeout", Positive, "How long an acknowledgement waits for the hot view at most."),
    note(
        "hot.max_pending",
        COUNT,
        "Most pending deltas in one entry; beyond it the entry is stale until the store has caught up.",
    ),
    note(
        "hot.publish_budget",
        MANY,
        "Entries that the lanes of a process publish a second at most, those with most pending first; others wait their turn.",
    ),
    note("hot.memory", Positive, "Most memory of the in-process hot view; entries are evicted beyond it."),
    note("hot.negative_ttl", Free, "How long a counter that nobody has counted is remembered as unknown."),
    note(
        "hot.ttl",
        Positive,
        "How long an entry in Redis lives after it was last published or loaded, give or take a tenth.",
    ),
    note(
        "hot.prefix",
        Free,
        "What every key in Redis begins with. Programs that share a server need one each; so does a log or a store that is made anew.",
    ),
    note("hot.ca_file", Free, "Certificates that `rediss://` trusts, a file in PEM. Empty: those of the system."),
    note("ingest.max_body", Positive, "Largest body as sent; beyond it: 413."),
    note("ingest.max_decoded", Positive, "Largest body after decompression; beyond it: 413."),
    note("ingest.max_items", COUNT, "Most items of one request; beyond it: 413."),
    note("ingest.max_future", Free, "How far ahead of now an item's time may be."),
    note("ingest.max_age", Free, "How old an item may be. 0: no bound."),
    note(
        "ingest.linger",
        Free,
        "How long a pack waits for more items; up to four times as long (at most 10ms) while appends take long.",
    ),
    note("ingest.pack_bytes", Sized(1, 64 << 20), "A pack closes at this size."),
    note(
        "ingest.in_flight",
        Between(1, 1_024),
        "Unacknowledged packs of one partition; the next one closes when one of them returns.",
    ),
    note(
        "ingest.buffer",
        Positive,
        "Bytes of items that are accepted into packs and not acknowledged; beyond it: 429.",
    ),
    note("ingest.body_timeout", Positive, "How long a body may take to arrive; beyond it: 408."),
    note("ingest.ack_timeout", Positive, "How long a request waits for the log; beyond it: 503."),
    note(
        "ingest.format",
        Between(1, crate::pack::FORMAT as i64),
        "The format version that packs are written in. Raise it when every worker can read the new one.",
    ),
    note(
        "ingest.grains",
        OneOf(&["minute", "hour", "day"]),
        "The time buckets that every increment counts into: `minute`, `hour`, `day`.",
    ),
    note("worker.flush_age", Positive, "A lane flushes when its oldest unflushed delta is this old."),
    note("worker.flush_rows", MANY, "A lane flushes when so many rows wait to be written."),
    note("worker.flush_bytes", Positive, "A lane flushes when what waits takes so much memory."),
    note(
        "worker.checkpoint_delay",
        Free,
        "How far the checkpoint trails behind what is stored: what a store may lose to a power cut is replayed.",
    ),
    note(
        "worker.max_rows",
        MANY,
        "Rows that a lane keeps in memory; at the bound clean rows are evicted, or the lane pauses.",
    ),
    note(
        "worker.slice_rows",
        Between(0, 1_000_000_000),
        "A shard with more rows than this is read row by row instead of as one slice.",
    ),
    note(
        "worker.read_bytes",
        Positive,
        "Bytes of packs that a lane on Kafka reads ahead; then its partition is paused, and what the client has fetched beyond is fetched again.",
    ),
    note("worker.session_timeout", Positive, "How long a worker may be silent before its lanes go to another."),
    note("dedup.window", Positive, "How long an id is remembered, in log time: a retry within it counts once."),
    note(
        "dedup.max_ids",
        MANY,
        "How many ids a lane remembers at most; when this binds, the window is shorter and a metric says so.",
    ),
    note("query.timeout", Positive, "How long a query may take."),
    note("query.max_series", MANY, "Most series that one query may read."),
    note("query.scans", COUNT, "Queries that read every series of a counter at once; others wait for their turn."),
    note("lag.interval", Positive, "How often lag is measured."),
    note("lag.warn", Positive, "A lane whose oldest unstored pack is older than this is in WARN."),
    note("lag.stall", Positive, "A lane that has lag and has not moved for this long is in STALL."),
    note("lag.window", Positive, "Lag that grew over this long is WARN."),
    note("lag.timeout", Positive, "How long a measurement waits for the log and for the store."),
    note("retry.initial", Positive, "The first delay's upper bound; later ones double."),
    note("retry.max", Positive, "No delay between two tries is longer."),
    note(
        "shutdown.deadline",
        Positive,
        "How long a run may take to drain after the first signal; beyond it: exit code 1.",
    ),
    note("http.max_connections", COUNT, "Connections that a listener holds at once; further ones are answered 503."),
    note(
        "http.header_timeout",
        Positive,
        "How long a client may take to send a request's head; beyond it the connection is closed.",
    ),
    note("admin.health_interval", Positive, "How often each dependency is checked."),
    note(
        "admin.health_timeout",
        Positive,
        "How long a check waits; without an answer the dependency counts as failing.",
    ),
    note("admin.max_streams", COUNT, "Streams of lag that are open at once; beyond it: 503."),
];

/// The note of a setting.
pub fn of(key: &str) -> &'static Note {
    NOTES.iter().find(|note| note.key == key).unwrap_or(&SILENT)
}
