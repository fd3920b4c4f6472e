//! Small UDP packets, as fast as they can be sent: what a capture adds to the price of each, and what it loses.

use anyhow::Result;

use crate::{
    contestant::Capture,
    report::{Row, Who},
    sender::Sender,
    sessions::{Results, sessions},
    statistics::Estimate,
};

/// Packets of a turn: what disturbs the machine for longer than a few turns last meets all contestants alike.
pub const COUNT: u32 = 4_000;

/// Packets of each sender where it is counted what is lost: more than any buffer holds.
const MANY: u32 = 150_000;

/// Turns in which it is counted what is lost.
const LONG_ROUNDS: usize = 12;

/// Of tcpdump's price, nsntrace is to take at most so much.
const GOAL: f64 = 1.0 / 3.0;

/// The same where several send at once.
const GOAL_OF_SEVERAL: f64 = 0.5;

/// All packets kept: to nowhere, and to a file.
pub fn bench(rounds: usize, original: Option<&str>) -> Result<Vec<Row>> {
    let to = |output| Capture { output, original, ..Capture::default() };
    let (null, file) = (to("/dev/null"), to("flood.pcap"));
    let mut contestants = vec![
        (Who::Nothing, null),
        (Who::Nsntrace, null),
        (Who::Nsntrace, file),
        (Who::Tcpdump, null),
        (Who::Tcpdump, file),
        (Who::Dumpcap, null),
    ];
    contestants.extend(original.map(|_| (Who::Original, null)));
    let results = sessions(
        rounds,
        &contestants,
        |lab| lab.udp_sink(9),
        |contestant| contestant.turn(|sender| warm_flood(sender, 1, COUNT)),
    )?;
    let mut to_nowhere =
        priced("flood, to /dev/null", &results, [3, 1], GOAL).with(Who::Dumpcap, results.added(5));
    if original.is_some() {
        to_nowhere = to_nowhere.with(Who::Original, results.added(6));
    }
    let long = by(1, MANY, rounds.min(LONG_ROUNDS), file)?;
    Ok(vec![
        to_nowhere,
        priced("flood, to a file", &results, [4, 2], GOAL),
        Row::new("flood, to a file", "packets lost")
            .with(Who::Tcpdump, lost(&long, 2))
            .with(Who::Nsntrace, lost(&long, 1))
            .at_most("lost", lost(&long, 1), 0.0),
    ])
}

/// With an expression that nothing of the flood matches.
pub fn unmatched(rounds: usize) -> Result<Row> {
    let capture = Capture { output: "/dev/null", filter: Some("udp port 4242"), ..Capture::default() };
    let results = by(1, COUNT, rounds, capture)?;
    Ok(priced("flood, -f matches nothing", &results, [2, 1], GOAL))
}

/// From several senders at once.
pub fn several(rounds: usize) -> Result<Vec<Row>> {
    let capture = Capture { output: "/dev/null", ..Capture::default() };
    let mut rows = Vec::new();
    for senders in [2, 4] {
        let work = format!("flood from {senders} senders");
        let results = by(senders, COUNT, rounds, capture)?;
        rows.push(priced(&work, &results, [2, 1], GOAL_OF_SEVERAL));
        let results = by(senders, MANY, rounds.min(LONG_ROUNDS), capture)?;
        let lost = |which: usize| Estimate::exact(100.0 * (1.0 - results.spent[which].share()));
        rows.push(
            Row::new(work, "% of packets lost")
                .with(Who::Tcpdump, lost(2))
                .with(Who::Nsntrace, lost(1))
                .at_most("lost", lost(1), lost(2).value),
        );
    }
    Ok(rows)
}

/// So many packets from each of some senders, in the turns of nobody, nsntrace and tcpdump.
fn by(senders: u32, count: u32, rounds: usize, capture: Capture<'_>) -> Result<Results> {
    sessions(
        rounds,
        &[Who::Nothing, Who::Nsntrace, Who::Tcpdump].map(|who| (who, capture)),
        |lab| lab.udp_sink(9),
        |contestant| contestant.turn(|sender| warm_flood(sender, senders, count)),
    )
}

/// A flood behind another that is not measured: who has just been started is then as warm as who is there all the time.
fn warm_flood(sender: &mut Sender, senders: u32, count: u32) -> Result<f64> {
    sender.flood(COUNT)?;
    sender.flood_by(senders, count)
}

/// Packets that were lost in long turns.
fn lost(results: &Results, which: usize) -> Estimate {
    Estimate::exact(results.spent[which].dropped as f64)
}

/// What tcpdump and nsntrace, which have these numbers, add to a packet.
fn priced(work: &str, results: &Results, [tcpdump, nsntrace]: [usize; 2], goal: f64) -> Row {
    Row::new(work, "ns added to a packet")
        .with(Who::Nothing, results.taken(0))
        .with(Who::Tcpdump, results.added(tcpdump))
        .with(Who::Nsntrace, results.added(nsntrace))
        .at_most("of tcpdump's", results.added_ratio(nsntrace, tcpdump), goal)
}
