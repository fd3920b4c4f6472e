//! What a trace costs the program, beside tcpdump and dumpcap in the same place, and no capture at all.
//!
//! The contestants take short turns, many of them, on the same kind of namespace, veth and NAT, so that what the machine
//! does meanwhile meets all of them. What is printed are medians, of paired differences where something is added, with
//! intervals of 95 % confidence.

mod awake;
mod bulk;
mod cgroup;
mod contestant;
mod fidelity;
mod filter;
mod flood;
mod idle;
mod live;
mod memory;
mod namespace;
mod owners;
mod pcap;
mod place;
mod report;
mod sender;
mod sessions;
mod start;
mod statistics;
mod summary;
mod usage;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use nsntrace_tests::why_no_lab;

use report::Row;

/// Measure what a trace costs
#[derive(Parser)]
struct Cli {
    /// What to measure [default: the table of the README, which is all down to fidelity]
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// How often each contestant has its turn [default: what each part needs]
    #[arg(long)]
    rounds: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// A binary of the original nsntrace, to be measured too
    #[arg(long, value_name = "PATH")]
    original: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    Flood,
    Senders,
    Filter,
    Bulk,
    Start,
    Idle,
    Live,
    Memory,
    Fidelity,
    Cgroup,
    Summary,
    Owners,
}

/// The parts that are measured where none is named.
const TABLE: [Part; 9] = [
    Part::Flood,
    Part::Filter,
    Part::Senders,
    Part::Bulk,
    Part::Start,
    Part::Idle,
    Part::Live,
    Part::Memory,
    Part::Fidelity,
];

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(reason) = why_no_lab() {
        bail!("nothing can be measured here: {reason}");
    }
    let parts = if cli.parts.is_empty() { &TABLE[..] } else { &cli.parts };
    let mut rows = Vec::new();
    for part in parts {
        let began = Instant::now();
        let measured = part.measure(cli.rounds, cli.original.as_deref())?;
        // At once: all of them take long, and who stops it before the end has these.
        eprintln!("{part:?}: {} s\n{}", began.elapsed().as_secs(), report::table(&measured));
        rows.extend(measured);
    }
    let place = place::Place::here()?;
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "place": place, "rows": rows }))?);
    } else {
        println!("{place}\n\n{}", report::table(&rows));
    }
    Ok(())
}

impl Part {
    fn measure(self, rounds: Option<usize>, original: Option<&str>) -> Result<Vec<Row>> {
        let rounds = rounds.unwrap_or(self.rounds());
        match self {
            Self::Flood => flood::bench(rounds, original),
            Self::Senders => flood::several(rounds),
            Self::Filter => filter::bench(rounds),
            Self::Bulk => bulk::bench(rounds),
            Self::Start => start::bench(rounds, original),
            Self::Idle => idle::bench(rounds),
            Self::Live => live::bench(rounds),
            Self::Memory => memory::bench(rounds),
            Self::Fidelity => fidelity::bench(rounds),
            Self::Cgroup => cgroup::bench(rounds),
            Self::Summary => summary::bench(rounds),
            Self::Owners => owners::bench(rounds),
        }
    }

    /// Enough for intervals that say something on a noisy machine. The unit is the part's: rounds, traces at once, millions
    /// of packets.
    fn rounds(self) -> usize {
        match self {
            Self::Flood | Self::Filter | Self::Cgroup | Self::Summary | Self::Owners => 144,
            Self::Senders => 108,
            Self::Start => 60,
            Self::Bulk => 108,
            Self::Idle | Self::Memory => 10,
            Self::Live | Self::Fidelity => 3,
        }
    }
}
