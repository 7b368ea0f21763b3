//! What `bench/run --stack` asks beside the load: how fast a backlog drains, how soon the hot view shows an increment, and what
//! the machine's own pauses do to latency.
//!
//! By hand: `cargo bench --bench stack -- drain --help`, `… visible --help`, `… floor --help`.

mod histogram;
mod probe;
mod stack {
    pub mod drain;
    pub mod floor;
    pub mod visible;
}

use clap::{Parser, Subcommand};
use stack::{drain, floor, visible};

/// Watches a running stack
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Follow a worker until it has stored everything
    Drain(drain::Options),
    /// Look how often the machine stands still, and what that alone does to latency
    Floor(floor::Options),
    /// Post increments and ask the hot view until it shows them
    Visible(visible::Options),
}

fn main() -> anyhow::Result<()> {
    let figures = match Options::parse().what {
        Some(What::Drain(options)) => drain::run(&options)?,
        Some(What::Floor(options)) => floor::run(&options)?,
        Some(What::Visible(options)) => visible::run(&options)?,
        None => {
            println!("stack: needs `drain`, `floor` or `visible`, see --help and bench/README.md");
            return Ok(());
        }
    };
    let figures: Vec<_> = figures.iter().map(|(name, figure)| format!("\"{name}\":{figure:.4}")).collect();
    println!("{{{}}}", figures.join(","));
    Ok(())
}
