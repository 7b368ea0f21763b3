//! The load generator: increments or events over HTTP/1.1 to a running ingest, as fast as it answers or at a given rate.
//!
//! `bench/run` drives it; by hand: `cargo bench --bench load -- --url http://127.0.0.1:8080 --batch 100 --rate 200000`.
//!
//! At a given rate (open loop) each request has a due time, `n / rate`, whatever became of the ones before it, and its
//! latency counts from then: what waits because the server or the generator is slow is counted as waiting. Without a rate
//! (closed loop) every connection sends its next request when it has its answer, and latency counts from the sending.
//! Requests are rendered once and patched in place, so that the generator takes little of the machine it shares.

mod cpu;
mod histogram;
mod load {
    pub mod buckets;
    pub mod client;
    pub mod options;
    pub mod pace;
    pub mod report;
    pub mod request;
    pub mod watch;
}
mod probe;
mod workload;

use std::sync::Arc;

use clap::Parser as _;
use load::{client, options::Options, report::Report, watch::Watch};
use workload::Zipf;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let Some(target) = options.target()? else {
        println!("load: needs --url, see --help and bench/README.md");
        return Ok(());
    };
    let zipf = Arc::new(Zipf::new(options.series, options.zipf));
    let watch = Watch::start(&options)?;
    let run = client::run(&options, &target, &zipf, &watch)?;
    let report = Report::new(&options, run, watch.finish());
    println!("{}", if options.json { report.to_json() } else { report.to_string() });
    Ok(())
}
