//! What a trace costs the program, beside tcpdump in the same place and no capture at all: `bench PART [ROUNDS]`.
//!
//! The contestants take short turns, many of them, on the same kind of namespace, veth and NAT, so that what the machine
//! does meanwhile meets all of them. What is printed are medians of paired differences.

mod cgroup;
mod filter;
mod flood;
mod owners;
mod sender;
mod statistics;
mod summary;

use anyhow::{Context, Result, bail};
use nsntrace_tests::why_no_lab;

/// Enough for a confidence interval that says something on a noisy machine.
const ROUNDS: usize = 150;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let part = arguments.next().context("usage: bench flood|filter|cgroup|summary|owners [ROUNDS]")?;
    let rounds =
        arguments.next().map_or(Ok(ROUNDS), |rounds| rounds.parse()).context("ROUNDS is a number")?;
    if let Some(reason) = why_no_lab() {
        bail!("nothing can be measured here: {reason}");
    }
    match part.as_str() {
        "flood" => flood::bench(rounds),
        "filter" => filter::bench(rounds),
        "cgroup" => cgroup::bench(rounds),
        "summary" => summary::bench(rounds),
        "owners" => owners::bench(rounds),
        other => bail!("no such bench: {other}"),
    }
}
