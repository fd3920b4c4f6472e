//! What a filter costs: in the kernel by itself, in a flood of which nothing matches, and at the start.

use anyhow::{Result, ensure};
use nsntrace_tests::filter::{Loaded, Program, compile};

use crate::{
    flood,
    report::{Row, Who},
    start,
    statistics::{estimate, median_of},
};

const EN10MB: u16 = 1;

/// Runs of a program at a time.
const REPEAT: u32 = 100_000;

/// What is less noisy is measured once for so many turns of the flood.
const SELDOM: usize = 4;

/// Runs all parts.
pub fn bench(rounds: usize) -> Result<Vec<Row>> {
    let mut rows = in_the_kernel(rounds.div_ceil(SELDOM))?;
    // Both add so little that it takes more rounds to see it.
    rows.push(flood::unmatched(2 * rounds)?);
    rows.push(start::filtered(rounds.div_ceil(SELDOM))?);
    Ok(rows)
}

/// A filter, a frame of it, and one of something else.
struct Subject {
    name: &'static str,
    loaded: Loaded,
    matching: Vec<u8>,
    other: Vec<u8>,
}

fn in_the_kernel(rounds: usize) -> Result<Vec<Row>> {
    let terms: Vec<_> = (0..20).map(|n| format!("tcp port {}", 8000 + n)).collect();
    let hosts: Vec<_> = (0..200).map(|n| format!("host 10.{}.{}.1", n / 100, n % 100)).collect();
    let subjects = [
        subject("empty", "", tcp([10, 9, 9, 1], 80), tcp([10, 9, 9, 1], 80))?,
        subject("tcp port 80", "tcp port 80", tcp([10, 9, 9, 1], 80), tcp([10, 9, 9, 1], 81))?,
        subject("20 ports", &terms.join(" or "), tcp([10, 9, 9, 1], 8019), tcp([10, 9, 9, 1], 81))?,
        subject("200 hosts", &hosts.join(" or "), tcp([10, 1, 99, 1], 80), tcp([10, 9, 9, 1], 80))?,
    ];
    let mut results = vec![Vec::new(); subjects.len()];
    for _ in 0..rounds {
        for (subject, results) in subjects.iter().zip(&mut results) {
            results.push(subject.run()?);
        }
    }
    let mut rows = Vec::new();
    for (subject, results) in subjects.iter().zip(&results) {
        for (part, which) in [("match", 0), ("no match", 1)] {
            let figure = estimate(results, |rounds| median_of(rounds, |round: &[f64; 2]| round[which]));
            let work = format!("TEST_RUN, {}, {part}", subject.name);
            rows.push(Row::new(work, "ns a packet").with(Who::Nsntrace, figure));
        }
    }
    Ok(rows)
}

fn subject(name: &'static str, expression: &str, matching: Vec<u8>, other: Vec<u8>) -> Result<Subject> {
    let loaded = Program::Tc { outgoing: true }.load(&compile(expression, EN10MB)?)?;
    let subject = Subject { name, loaded, matching, other };
    ensure!(subject.loaded.picks(&subject.matching)?, "{name} does not match what it should");
    ensure!(name == "empty" || !subject.loaded.picks(&subject.other)?, "{name} matches what it should not");
    Ok(subject)
}

impl Subject {
    /// Nanoseconds for a packet that matches, and for one that does not.
    fn run(&self) -> Result<[f64; 2]> {
        let time = |frame: &[u8]| anyhow::Ok(f64::from(self.loaded.test_run(frame, REPEAT)?.1));
        Ok([time(&self.matching)?, time(&self.other)?])
    }
}

/// A TCP segment without payload.
fn tcp(to: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0, 0x45, 0, 0, 52, 0, 0, 0x40, 0, 64, 6, 0, 0, 172, 16, 42, 255]);
    frame.extend(to);
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x80, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend([1; 12]);
    frame
}
