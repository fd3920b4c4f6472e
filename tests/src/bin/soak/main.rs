//! Whatever happens to many traces, nothing of them is left: `soak [MINUTES [SEED]]`.
//!
//! For so long, traces with options by chance run beside each other in a lab, and end by chance: by themselves, by a signal, or
//! because they or their guardians are killed. After each round the host is compared with what it was; at the end also
//! what two traces that ran all the time have taken of memory and descriptors, and what there is of BPF. The same seed makes
//! the same choices; what comes of them is a matter of time as well.

mod bpf;
mod choice;
mod findings;
mod long;
mod round;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nsntrace_tests::{Lab, SOON, why_no_lab};

use bpf::Objects;
use findings::Findings;
use long::Long;
use round::Place;

const MINUTES: u64 = 60;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |name| arguments.next().map(|text| text.parse::<u64>().context(name)).transpose();
    let minutes = number("MINUTES is a number")?.unwrap_or(MINUTES);
    let seed = number("SEED is a number")?.unwrap_or_else(|| fastrand::u64(..));
    if let Some(reason) = why_no_lab() {
        bail!("nothing can be tried here: {reason}");
    }
    println!("{minutes} minutes, seed {seed}");
    let findings = soak(Duration::from_secs(60 * minutes), seed)?;
    print!("{findings}");
    Ok(if findings.are_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn soak(time: Duration, seed: u64) -> Result<Findings> {
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut findings = Findings::default();
    let objects = Objects::now()?;
    let lab = Lab::new()?;
    let place = Place::new(&lab)?;
    let untouched = lab.snapshot()?;
    let long = Long::start(&lab, place.cgroup())?;
    let before = place.state()?;
    let mut usage = None;
    while began.elapsed() < time {
        place.round(&mut random, &mut findings)?;
        findings.compare("the host, after each round", place.difference(&before)?);
        // What is needed but once is there after the first.
        if usage.is_none() {
            usage = Some(long.usage()?);
        }
    }
    findings.compare_usage(&usage.context("not one round was made")?, &long.usage()?);
    long.end()?;
    let left = lab.assert_clean_within(SOON, &untouched).err();
    findings.compare("the host, at the end", left.map(|error| format!("{error:#}")));
    findings.compare("BPF objects, at the end", objects.left(&lab)?);
    Ok(findings)
}
