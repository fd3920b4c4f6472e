//! What a filter costs: in the kernel by itself, in a flood of which nothing matches, and at the start.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{
    Lab,
    filter::{Loaded, Program, compile},
};

use crate::{
    flood,
    statistics::{Estimate, estimate, median, verdict},
};

const EN10MB: u16 = 1;

/// Runs of a program at a time.
const REPEAT: u32 = 100_000;

/// What `-f` may add to the start, in milliseconds.
const START_GOAL: f64 = 20.0;

/// Runs all parts.
pub fn bench(rounds: usize) -> Result<()> {
    ensure!(rounds > 1, "a median needs rounds");
    in_the_kernel(rounds)?;
    flood::compare(rounds, Some("udp port 4242"))?;
    at_the_start(rounds)
}

/// A filter, a frame of it, and one of something else.
struct Subject {
    name: &'static str,
    loaded: Loaded,
    matching: Vec<u8>,
    other: Vec<u8>,
}

fn in_the_kernel(rounds: usize) -> Result<()> {
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
    println!("TEST_RUN, ns a packet, {rounds} rounds of {REPEAT}: medians, 95 % intervals");
    for (subject, results) in subjects.iter().zip(&results) {
        let of = |which: fn(&(f64, f64)) -> f64| {
            estimate(results, |rounds| median(&rounds.iter().map(which).collect::<Vec<_>>()))
        };
        println!(
            "{:<12} match {}, no match {}",
            subject.name,
            words(of(|round| round.0)),
            words(of(|round| round.1))
        );
    }
    Ok(())
}

fn words(Estimate { value, low, high }: Estimate) -> String {
    format!("{value:>5.1} ({low:.1} to {high:.1})")
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
    fn run(&self) -> Result<(f64, f64)> {
        let time = |frame: &[u8]| anyhow::Ok(f64::from(self.loaded.test_run(frame, REPEAT)?.1));
        Ok((time(&self.matching)?, time(&self.other)?))
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

/// `nsntrace true` with and without a filter.
fn at_the_start(rounds: usize) -> Result<()> {
    let lab = Lab::new()?;
    let run = |options: &[&str]| -> Result<f64> {
        let job = lab.nsntrace(options.iter().copied().chain(["-q", "true"]))?.limit(Duration::from_secs(60));
        let began = Instant::now();
        job.run()?.exited(0).context("nsntrace true")?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    };
    let mut differences = Vec::new();
    let mut without = Vec::new();
    for round in 0..rounds {
        let (plain, filtered) = if round % 2 == 0 {
            let plain = run(&[])?;
            (plain, run(&["-f", "tcp port 80"])?)
        } else {
            let filtered = run(&["-f", "tcp port 80"])?;
            (run(&[])?, filtered)
        };
        without.push(plain);
        differences.push(filtered - plain);
    }
    let added = estimate(&differences, median);
    println!("nsntrace true: {:.0} ms; -f 'tcp port 80' adds {} ms", median(&without), words(added));
    let verdict = verdict(added.high < START_GOAL, added.low >= START_GOAL);
    println!("less than {START_GOAL} ms: {verdict}");
    Ok(())
}
