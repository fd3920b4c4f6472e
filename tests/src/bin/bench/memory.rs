//! What a trace holds in memory, and that it holds no more after many packets.

use anyhow::Result;
use nsntrace_tests::{Lab, SERVER_ADDRESS};

use crate::{
    report::{Row, Who},
    sender::{SHELL, Sender},
    statistics::Estimate,
    usage::resident,
};

/// Packets between two looks.
const STEP: u32 = 1_000_000;

/// What may be resident without the ring, in MiB.
const GOAL: f64 = 12.0;

/// What may come to it after the first step, in KiB: pages that are touched for the first time.
const FLAT: f64 = 128.0;

/// A flood of so many million packets.
pub fn bench(millions: usize) -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let _sink = lab.udp_sink(9)?;
    let job = lab.nsntrace(["-o", "/dev/null"].iter().chain(&SHELL))?;
    let mut sender = Sender::start(job, SERVER_ADDRESS)?;
    let mut seen = Vec::new();
    for _ in 0..millions {
        sender.flood(STEP)?;
        seen.push(resident(sender.pid())?);
    }
    sender.end()?;
    let largest = Estimate::exact(seen.iter().copied().fold(0.0, f64::max) / 1024.0);
    let grown = Estimate::exact(seen[seen.len() - 1] - seen[0]);
    Ok(vec![
        Row::new("memory, without the ring", "MiB resident")
            .with(Who::Nsntrace, largest)
            .at_most("MiB", largest, GOAL),
        Row::new(format!("memory, after {millions}000000 packets"), "KiB more than after 1000000")
            .with(Who::Nsntrace, grown)
            .at_most("KiB", grown, FLAT),
    ])
}
