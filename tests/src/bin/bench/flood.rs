//! Small UDP packets, as fast as they can be sent: what a capture adds to the price of each, and what it loses.

use anyhow::Result;

use crate::{
    contestant::Capture,
    report::{Row, Who},
    sender::Sender,
    sessions::{Results, sessions},
    statistics::Estimate,
};

/// Packets of a turn: what disturbs the machine for longer than a few turns last meets all contestants alike, and whoever writes
/// them comes by in it.
pub const COUNT: u32 = 20_000;

/// Packets of a turn where it is counted what is lost: more than any buffer holds.
const MANY: u32 = 600_000;

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
        (Who::Tcpdump, null),
        (Who::Nsntrace, null),
        (Who::Tcpdump, file),
        (Who::Nsntrace, file),
        (Who::Dumpcap, null),
    ];
    contestants.extend(original.map(|_| (Who::Original, null)));
    let results = floods(rounds, &contestants, 1, COUNT)?;
    let mut to_nowhere =
        priced("flood, to /dev/null", &results, [1, 2], GOAL).with(Who::Dumpcap, results.added(5));
    if original.is_some() {
        to_nowhere = to_nowhere.with(Who::Original, results.added(6));
    }
    let long = floods(rounds.min(LONG_ROUNDS), &with_tcpdump(file), 1, MANY)?;
    let lost = |which: usize| Estimate::exact(long.spent[which].dropped as f64);
    Ok(vec![
        to_nowhere,
        priced("flood, to a file", &results, [3, 4], GOAL),
        Row::new("flood, to a file", "packets lost")
            .with(Who::Tcpdump, lost(1))
            .with(Who::Nsntrace, lost(2))
            .at_most("lost", lost(2), 0.0),
    ])
}

/// With an expression that nothing of the flood matches.
pub fn unmatched(rounds: usize) -> Result<Row> {
    let capture = Capture { output: "/dev/null", filter: Some("udp port 4242"), ..Capture::default() };
    let results = floods(rounds, &with_tcpdump(capture), 1, COUNT)?;
    Ok(priced("flood, -f matches nothing", &results, [1, 2], GOAL))
}

/// From several senders at once.
pub fn several(rounds: usize) -> Result<Vec<Row>> {
    let contestants = with_tcpdump(Capture { output: "/dev/null", ..Capture::default() });
    let mut rows = Vec::new();
    for senders in [2, 4] {
        let work = format!("flood from {senders} senders");
        let results = floods(rounds, &contestants, senders, COUNT)?;
        rows.push(priced(&work, &results, [1, 2], GOAL_OF_SEVERAL));
        let long = floods(rounds.min(LONG_ROUNDS), &contestants, senders, MANY / senders)?;
        let lost = |which: usize| Estimate::exact(100.0 * (1.0 - long.spent[which].share()));
        rows.push(
            Row::new(work, "% of packets lost")
                .with(Who::Tcpdump, lost(1))
                .with(Who::Nsntrace, lost(2))
                .at_most("lost", lost(2), lost(1).value),
        );
    }
    Ok(rows)
}

/// Nobody, tcpdump and nsntrace.
fn with_tcpdump(capture: Capture<'_>) -> [(Who, Capture<'_>); 3] {
    [Who::Nothing, Who::Tcpdump, Who::Nsntrace].map(|who| (who, capture))
}

/// So many packets from each of some senders, in turns, each behind a flood that is not measured: who has just been started is
/// then as warm as who is there all the time.
fn floods(rounds: usize, contestants: &[(Who, Capture<'_>)], senders: u32, count: u32) -> Result<Results> {
    let flood = |sender: &mut Sender| {
        sender.flood(COUNT)?;
        sender.flood_by(senders, count)
    };
    sessions(rounds, contestants, |lab| lab.udp_sink(9), |contestant| contestant.turn(flood))
}

/// What tcpdump and nsntrace, which have these numbers, add to a packet.
fn priced(work: &str, results: &Results, [tcpdump, nsntrace]: [usize; 2], goal: f64) -> Row {
    Row::new(work, "ns added to a packet")
        .with(Who::Nothing, results.taken(0))
        .with(Who::Tcpdump, results.added(tcpdump))
        .with(Who::Nsntrace, results.added(nsntrace))
        .at_most("of tcpdump's", results.added_ratio(nsntrace, tcpdump), goal)
}
