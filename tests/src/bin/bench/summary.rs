//! The flood with and without somebody who looks at the packets: what that costs the sender, and the thread that writes.

use anyhow::{Result, ensure};

use crate::{
    flood::COUNT,
    namespace::Namespace,
    report::{Row, Who},
    statistics::{estimate, median_of},
    usage::busy_thread,
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

/// Lets the contestants take turns.
pub fn bench(rounds: usize) -> Result<Vec<Row>> {
    ensure!(rounds > 1, "a median needs rounds");
    let mut contestants = CONTESTANTS.into_iter().map(Namespace::new).collect::<Result<Vec<_>>>()?;
    let mut results = vec![Round::default(); rounds];
    let mut order = [0, 1, 2, 3];
    for number in 0..=rounds {
        for which in order {
            let contestant = &mut contestants[which];
            // What the turn before has left to write is written by now: the others had theirs meanwhile.
            let busy = busy_thread(contestant.sender.pid(), "drain")?;
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
        let done = contestant.end()?;
        ensure!(done.dropped()? == 0, "packets were dropped: {}", done.stderr);
    }
    Ok(report(&results))
}

fn report(rounds: &[Round]) -> Vec<Row> {
    let adds =
        |figure: fn(&Round) -> f64| estimate(rounds, move |rounds: &[Round]| median_of(rounds, figure));
    let [sender, writer] = ["ns added for the sender of a packet", "ns added for the writer of a packet"];
    let looking = adds(|round| round.sender[3] - round.sender[2]);
    let row = |work: &str, measure: &str, figure| Row::new(work, measure).with(Who::Nsntrace, figure);
    vec![
        row("flood, pcapng", sender, adds(|round| round.sender[2] - round.sender[0])),
        row("flood, --summary", sender, adds(|round| round.sender[1] - round.sender[0])),
        row("flood, --summary beside pcapng", sender, looking).at_most("ns", looking, NOTHING),
        row("flood, pcap", "ns for the writer of a packet", adds(|round| round.writer[0])),
        row("flood, pcapng", writer, adds(|round| round.writer[2] - round.writer[0])),
        row("flood, --summary", writer, adds(|round| round.writer[1] - round.writer[0])),
        row("flood, --summary beside pcapng", writer, adds(|round| round.writer[3] - round.writer[2])),
    ]
}
