//! The examples under every command's help.

pub const ROOT: &str = "\
Without a command: the same as `tallymark run all`.
Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 a dependency was not reached, 4 a lane has halted.

Examples:
  tallymark                                   everything in one process, data in ./tallymark-data
  tallymark --listen 0.0.0.0:8080 --set worker.flush_age=2s
  tallymark config show                       every setting and where it came from
  tallymark send access.log --format combined";

pub const RUN: &str = "\
The first SIGTERM or SIGINT drains within shutdown.deadline; a second one ends at once.
Exit codes: 0 drained, 1 failed or not drained in time, 2 configuration, 3 log or store not reached.

Examples:
  tallymark run
  tallymark run all --log embedded:/var/lib/tallymark --store embedded:/var/lib/tallymark
  TALLYMARK_WORKER__CHECKPOINT_DELAY=10s tallymark run --config tallymark.toml";

pub const VALIDATE: &str = "\
Exit codes: 0 fit to run, 1 something is unfit, 2 configuration, 3 something could not be reached.

Examples:
  tallymark validate --config tallymark.toml
  tallymark validate --no-connect --role worker";

pub const TOPIC: &str = "\
Examples:
  tallymark topic create --log kafka://localhost:9092/tallymark.packs
  tallymark topic check --json";

pub const CONFIG: &str = "\
Examples:
  tallymark config show
  tallymark config show --json | jq '.[\"log.url\"]'
  tallymark config show --config tallymark.toml --set store.shards=64";

pub const SCHEMA: &str = "\
Examples:
  tallymark schema print
  tallymark schema apply --store scylla://cassandra-1:9042,cassandra-2:9042/tallymark";

pub const SCHEMA_PRINT: &str = "\
Examples:
  tallymark schema print --store scylla://cassandra-1:9042/tallymark
  tallymark schema print --set store.replication=1 | cqlsh cassandra-1";

pub const SCHEMA_APPLY: &str = "\
Exit codes: 0 applied, 1 refused, 2 configuration, 3 no server was reached.

Examples:
  tallymark schema apply --store scylla://cassandra-1:9042,cassandra-2:9042/tallymark
  tallymark schema apply --store scylla://127.0.0.1:9042/trial --set store.replication=1
  tallymark schema apply --dry-run --config tallymark.toml";

pub const DEAD_LETTERS: &str = "\
Examples:
  tallymark dead-letters list
  tallymark dead-letters show 3 1042
  tallymark dead-letters replay --dry-run";

pub const COMPLETIONS: &str = "\
Examples:
  tallymark completions bash > /etc/bash_completion.d/tallymark
  tallymark completions zsh > ~/.zfunc/_tallymark
  tallymark completions fish > ~/.config/fish/completions/tallymark.fish";
