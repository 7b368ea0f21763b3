//! The table: each fault, what is expected of it, and how it is made.

use super::{cluster::Cluster, pace::Pace, row::Row};

mod brokers;
mod kills;
mod links;
mod nodes;
mod rebalances;
mod redis;
mod retention;
mod reused;
mod rolling;
mod scaling;
mod truncated;

/// Faults of one kind, which share their processes; they answer their rows, or why they could not be run to their end.
pub struct Fault {
    pub name: &'static str,
    pub expected: &'static str,
    /// It breaks nothing that others use, and runs beside the next one.
    pub is_apart: bool,
    pub run: fn(&Cluster, &Pace) -> Result<Vec<Row>, String>,
}

const fn fault(
    name: &'static str,
    expected: &'static str,
    run: fn(&Cluster, &Pace) -> Result<Vec<Row>, String>,
) -> Fault {
    Fault { name, expected, is_apart: false, run }
}

const fn apart(fault: Fault) -> Fault {
    Fault { is_apart: true, ..fault }
}

/// In the order in which they are run.
pub const TABLE: &[Fault] = &[
    apart(fault(
        "kills",
        "kill -9 of an ingest, of a worker, every 5 s, and SIGSTOP of a worker for twice the session timeout: lost 0, doubled 0; \
         another takes over within the session timeout + 10 s; the one that hung rejoins",
        kills::all,
    )),
    fault(
        "rolling",
        "to a build with the next pack format and schema, and back, under load: no 5xx to who retries once",
        rolling::forwards_and_back,
    ),
    fault(
        "brokers",
        "partition leader killed: nothing acknowledged is lost; two brokers killed: 503 and not one 2xx, memory bounded; back \
         within 30 s",
        brokers::all,
    ),
    fault(
        "nodes",
        "one store node down: everything goes on; two: 2xx go on, no checkpoint moves; then it drains",
        nodes::all,
    ),
    apart(fault(
        "embedded",
        "disk full, torn and garbled files under the embedded log and store: 503, recovery, never a panic",
        reused::embedded,
    )),
    apart(fault(
        "topic",
        "topic recreated, partitions added: the lanes halt with alarm and remedy, the others go on",
        reused::topic,
    )),
    fault(
        "links",
        "1 B/s, half-open, reset after send, latency, on every link: deadlines fire, lost 0, doubled 0",
        links::all,
    ),
    apart(fault(
        "retention",
        "retention overtakes a lane: it halts with alarm and remedy within 30 s, the others go on, and it too once accepted",
        retention::overtakes,
    )),
    fault(
        "redis",
        "FLUSHALL, killed, out of memory: 2xx go on, reads say when they are stale, healed within 60 s",
        redis::all,
    ),
    fault(
        "scaling",
        "from 1 to 3 to 1 workers: lost 0, doubled 0, the pause of each lane is printed; the group changes once a second: \
         progress, and nothing stays paused",
        scaling::all,
    ),
    fault(
        "truncated",
        "a lane's log loses its end on every broker: it halts with alarm and remedy within 30 s, the others go on",
        truncated::on_every_broker,
    ),
];
