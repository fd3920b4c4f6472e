//! The flood with and without somebody who looks at the packets: what that costs the sender, and the thread that writes.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{
    flood::COUNT,
    sender::{Namespace, Sender},
    statistics::{estimate, median_of, print, verdict},
};

/// Options of the contestants: each format without a summary, and with one.
const CONTESTANTS: [&[&str]; 4] =
    [&[], &["--summary=json"], &["-o", "x.pcapng"], &["-o", "x.pcapng", "--summary=json"]];

/// A price of fewer nanoseconds is none: one access to memory that is not in a cache takes longer.
const NOTHING: f64 = 20.0;

/// Nanoseconds a packet of each, in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    sender: [f64; 4],
    writer: [f64; 4],
}

/// Lets the contestants take turns and prints what they cost.
pub fn bench(rounds: usize) -> Result<()> {
    ensure!(rounds > 1, "a median needs rounds");
    let mut contestants = CONTESTANTS.into_iter().map(Namespace::new).collect::<Result<Vec<_>>>()?;
    let mut results = vec![Round::default(); rounds];
    let mut order = [0, 1, 2, 3];
    for number in 0..=rounds {
        for which in order {
            let contestant = &mut contestants[which];
            // What the turn before has left to write is written by now: the others had theirs meanwhile.
            let busy = writer(&contestant.sender)?;
            if let Some(before) = number.checked_sub(1) {
                let written = busy - results[before].writer[which];
                results[before].writer[which] = written / f64::from(COUNT);
            }
            if let Some(round) = results.get_mut(number) {
                round.writer[which] = busy;
                round.sender[which] = contestant.sender.flood(COUNT)?;
            }
        }
        order.rotate_left(1);
    }
    for contestant in contestants {
        let done = contestant.sender.end()?;
        ensure!(done.dropped()? == 0, "packets were dropped: {}", done.stderr);
    }
    report(&results);
    Ok(())
}

/// Nanoseconds that the writing thread was busy so far.
fn writer(sender: &Sender) -> Result<f64> {
    for thread in fs::read_dir(format!("/proc/{}/task", sender.pid()))? {
        let thread = thread?.path();
        if fs::read_to_string(thread.join("comm"))? == "drain\n" {
            let times = fs::read_to_string(thread.join("schedstat"))?;
            let busy = times.split(' ').next().context("no time")?;
            return Ok(busy.parse()?);
        }
    }
    anyhow::bail!("nobody writes")
}

fn report(rounds: &[Round]) {
    println!(
        "{COUNT} UDP packets of 64 bytes a turn, {} rounds: medians of paired differences, 95 % intervals",
        rounds.len()
    );
    let median = |figure: fn(&Round) -> f64| median_of(rounds, figure);
    let adds =
        |figure: fn(&Round) -> f64| estimate(rounds, move |rounds: &[Round]| median_of(rounds, figure));
    println!("the sender        {:>6.0} ns a packet", median(|round| round.sender[0]));
    let looking = adds(|round| round.sender[3] - round.sender[2]);
    print("--summary adds", adds(|round| round.sender[1] - round.sender[0]), "ns");
    print("pcapng adds", adds(|round| round.sender[2] - round.sender[0]), "ns");
    print("both, to pcapng", looking, "ns");
    println!("the writer        {:>6.0} ns a packet", median(|round| round.writer[0]));
    print("--summary adds", adds(|round| round.writer[1] - round.writer[0]), "ns");
    print("pcapng adds", adds(|round| round.writer[2] - round.writer[0]), "ns");
    print("both, to pcapng", adds(|round| round.writer[3] - round.writer[2]), "ns");
    let verdict = verdict(looking.high <= NOTHING, looking.low > NOTHING);
    println!("to look at packets costs the sender nothing: {verdict}");
}
