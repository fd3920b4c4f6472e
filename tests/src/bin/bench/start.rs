//! What it takes to trace nothing at all.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nsntrace_tests::{Job, Lab};

use crate::{
    report::{Row, Who},
    statistics::{estimate, median},
};

/// What a start and an end may take together, in milliseconds.
const GOAL: f64 = 100.0;

/// What `-f` may add to it.
const GOAL_OF_FILTER: f64 = 20.0;

/// `nsntrace true` on a host with IPv4 and IPv6.
pub fn bench(rounds: usize, original: Option<&str>) -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    lab.ipv6()?;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..rounds {
        ours.push(milliseconds(lab.nsntrace(["-q", "true"])?)?);
        if let Some(original) = original {
            theirs.push(milliseconds(lab.tracer([original, "true"])?)?);
        }
    }
    let ours = estimate(&ours, median);
    let mut row =
        Row::new("start, `nsntrace true`", "ms").with(Who::Nsntrace, ours).at_most("ms", ours, GOAL);
    if original.is_some() {
        row = row.with(Who::Original, estimate(&theirs, median));
    }
    Ok(vec![row])
}

/// What a filter adds to that.
pub fn filtered(rounds: usize) -> Result<Row> {
    let lab = Lab::new()?;
    lab.ipv6()?;
    let run = |options: &[&str]| milliseconds(lab.nsntrace(options.iter().copied().chain(["-q", "true"]))?);
    let mut differences = Vec::new();
    for round in 0..rounds {
        let mut taken = [0.0; 2];
        for turn in [round % 2, 1 - round % 2] {
            taken[turn] = run([&[][..], &["-f", "tcp port 80"]][turn])?;
        }
        differences.push(taken[1] - taken[0]);
    }
    let added = estimate(&differences, median);
    Ok(Row::new("start with -f 'tcp port 80'", "ms added").with(Who::Nsntrace, added).at_most(
        "ms",
        added,
        GOAL_OF_FILTER,
    ))
}

/// From before it is started until it can be waited for.
fn milliseconds(job: Job) -> Result<f64> {
    let began = Instant::now();
    let running = job.limit(Duration::from_secs(60)).spawn()?;
    waitid(Id::Pid(running.pid()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    let taken = began.elapsed();
    running.wait()?.exited(0).context("a start")?;
    Ok(taken.as_secs_f64() * 1000.0)
}
