//! What a trace holds in memory, and that it holds no more after many packets.

use anyhow::Result;

use crate::{
    namespace::Namespace,
    report::{Row, Who},
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
    let mut namespace = Namespace::new(&["-o", "/dev/null"])?;
    let mut seen = Vec::new();
    for _ in 0..millions {
        namespace.sender.flood(STEP)?;
        seen.push(resident(namespace.sender.pid())?);
    }
    namespace.end()?;
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
