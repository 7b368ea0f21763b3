//! `tallymark schema`: the store's CQL, printed and applied.

use clap::{Args, Subcommand};

use super::examples;
use crate::{
    app,
    config::Config,
    exit::{Exit, Failure},
};

/// What to do with the schema.
#[derive(Debug, Subcommand)]
pub enum Schema {
    /// Print the CQL that makes the keyspace and its tables
    ///
    /// Asks no server. The keyspace is the one that `--store` names, or `tallymark`; its copies are `store.replication` and
    /// `store.datacenter`. What is printed does the same as `apply` does in an empty cluster.
    #[command(after_help = examples::SCHEMA_PRINT)]
    Print(super::Configured<Print>),
    /// Make the keyspace and its tables, or bring them up to date
    ///
    /// May be repeated: what is there already stays as it is. A keyspace that is ahead of this program is left alone. One at
    /// a time: servers do not agree on two changes that are made at once.
    #[command(after_help = examples::SCHEMA_APPLY)]
    Apply(super::Configured<Apply>),
}

/// `tallymark schema print`
#[derive(Args, Debug)]
pub struct Print {}

/// `tallymark schema apply`
#[derive(Args, Debug)]
pub struct Apply {
    /// Print the statements that would be run, and run none
    #[arg(long)]
    dry_run: bool,
}

/// Prints the schema.
pub fn print(config: &Config) -> Result<Exit, Failure> {
    super::print(&app::schema::print(config))?;
    Ok(Exit::Done)
}

/// Applies it, and says what was done.
pub fn apply(config: &Config, args: &Apply) -> Result<Exit, Failure> {
    let applied = super::block_on(app::schema::apply(config, args.dry_run))??;
    let mut text = String::new();
    for warning in &applied.warnings {
        text.push_str(&format!("-- warning: {warning}\n"));
    }
    if args.dry_run {
        for statement in &applied.statements {
            text.push_str(&format!("{statement};\n"));
        }
    }
    let done = match (applied.statements.len(), args.dry_run) {
        (0, _) => format!("-- schema version {}: nothing to do\n", applied.from),
        (count, true) => {
            format!("-- schema version {} -> {}: {count} statements, none of them run\n", applied.from, applied.to)
        }
        (count, false) => format!("-- schema version {} -> {}: {count} statements run\n", applied.from, applied.to),
    };
    text.push_str(&done);
    super::print(&text)?;
    Ok(Exit::Done)
}
