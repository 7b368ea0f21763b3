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
mod stopped;

/// A fault; it answers its rows, or why it could not be run to its end.
pub struct Fault {
    pub name: &'static str,
    pub expected: &'static str,
    pub run: fn(&Cluster, &Pace) -> Result<Vec<Row>, String>,
}

/// In the order in which they are run.
pub const TABLE: &[Fault] = &[
    Fault { name: "kill-ingest", expected: "kill -9 of an ingest every 5 s: lost 0, doubled 0", run: kills::ingests },
    Fault {
        name: "kill-worker",
        expected: "kill -9 of a worker every 5 s: lost 0, doubled 0; another takes over within the session timeout + 10 s",
        run: kills::workers,
    },
    Fault {
        name: "stop-worker",
        expected: "SIGSTOP of a worker for twice the session timeout, SIGCONT: totals unchanged, it rejoins",
        run: stopped::worker,
    },
    Fault {
        name: "leader",
        expected: "partition leader killed: nothing acknowledged is lost; 2xx again within 30 s",
        run: brokers::leader,
    },
    Fault {
        name: "two-brokers",
        expected: "two brokers killed: 503 and not one 2xx, memory bounded; back within 30 s",
        run: brokers::two,
    },
    Fault { name: "one-node", expected: "one store node down: everything goes on", run: nodes::one },
    Fault {
        name: "two-nodes",
        expected: "two store nodes down: 2xx go on, no checkpoint moves; then it drains",
        run: nodes::two,
    },
    Fault {
        name: "links",
        expected: "1 B/s, half-open, reset after send, latency, on every link: deadlines fire, lost 0, doubled 0",
        run: links::all,
    },
    Fault {
        name: "redis",
        expected: "FLUSHALL, killed, out of memory: 2xx go on, reads say when they are stale, healed within 60 s",
        run: redis::all,
    },
    Fault {
        name: "rebalances",
        expected: "the group changes once a second: progress, and nothing stays paused",
        run: rebalances::once_a_second,
    },
    Fault {
        name: "embedded",
        expected: "disk full, torn and garbled files under the embedded log and store: 503, recovery, never a panic",
        run: reused::embedded,
    },
    Fault {
        name: "topic",
        expected: "topic recreated, partitions added: the lanes halt with alarm and remedy, the others go on",
        run: reused::topic,
    },
    Fault {
        name: "retention",
        expected: "retention overtakes a lane: it halts with alarm and remedy within 30 s, the others go on",
        run: retention::overtakes,
    },
    Fault {
        name: "rolling",
        expected: "to a build with the next pack format and schema, and back, under load: no 5xx to who retries once",
        run: rolling::forwards_and_back,
    },
    Fault {
        name: "scaling",
        expected: "from 1 to 3 to 1 workers: lost 0, doubled 0; the pause of each lane is printed",
        run: scaling::up_and_down,
    },
];
