//! Small UDP packets, as fast as they can be sent: what a capture adds to the price of each, and what it loses.

use anyhow::Result;

use crate::{
    contestant::Capture,
    report::{Row, Who},
    sessions::{Results, sessions},
    statistics::Estimate,
};

/// Packets of a turn: what disturbs the machine for longer than one lasts meets all contestants alike.
pub const COUNT: u32 = 40_000;

/// Packets of each sender in a turn of several: more than any buffer holds.
const MANY: u32 = 150_000;

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
    let results = sessions(
        rounds,
        &contestants,
        |lab| lab.udp_sink(9),
        |contestant| contestant.turn(|sender| sender.flood(COUNT)),
    )?;
    let mut to_nowhere =
        priced("flood, to /dev/null", &results, [1, 2], GOAL).with(Who::Dumpcap, results.added(5));
    if original.is_some() {
        to_nowhere = to_nowhere.with(Who::Original, results.added(6));
    }
    let lost = |which: usize| Estimate::exact(results.spent[which].dropped as f64);
    Ok(vec![
        to_nowhere,
        priced("flood, to a file", &results, [3, 4], GOAL),
        Row::new("flood, to a file", "packets lost")
            .with(Who::Tcpdump, lost(3))
            .with(Who::Nsntrace, lost(4))
            .at_most("lost", lost(4), 0.0),
    ])
}

/// With an expression that nothing of the flood matches.
pub fn unmatched(rounds: usize) -> Result<Row> {
    let capture = Capture { output: "/dev/null", filter: Some("udp port 4242"), ..Capture::default() };
    let contestants = [(Who::Nothing, capture), (Who::Tcpdump, capture), (Who::Nsntrace, capture)];
    let results = sessions(
        rounds,
        &contestants,
        |lab| lab.udp_sink(9),
        |contestant| contestant.turn(|sender| sender.flood(COUNT)),
    )?;
    Ok(priced("flood, -f matches nothing", &results, [1, 2], GOAL))
}

/// From several senders at once.
pub fn several(rounds: usize) -> Result<Vec<Row>> {
    let capture = Capture { output: "/dev/null", ..Capture::default() };
    let contestants = [(Who::Nothing, capture), (Who::Tcpdump, capture), (Who::Nsntrace, capture)];
    let mut rows = Vec::new();
    for senders in [2, 4] {
        let results = sessions(
            rounds,
            &contestants,
            |lab| lab.udp_sink(9),
            |contestant| contestant.turn(|sender| sender.flood_by(senders, MANY)),
        )?;
        let work = format!("flood from {senders} senders");
        rows.push(priced(&work, &results, [1, 2], GOAL_OF_SEVERAL));
        let lost = |which: usize| Estimate::exact(100.0 * (1.0 - results.spent[which].share()));
        rows.push(
            Row::new(work, "% of packets lost")
                .with(Who::Tcpdump, lost(1))
                .with(Who::Nsntrace, lost(2))
                .at_most("lost", lost(2), lost(1).value),
        );
    }
    Ok(rows)
}

/// What tcpdump and nsntrace, which have these numbers, add to a packet.
fn priced(work: &str, results: &Results, [tcpdump, nsntrace]: [usize; 2], goal: f64) -> Row {
    Row::new(work, "ns added to a packet")
        .with(Who::Nothing, results.taken(0))
        .with(Who::Tcpdump, results.added(tcpdump))
        .with(Who::Nsntrace, results.added(nsntrace))
        .at_most("of tcpdump's", results.added_ratio(nsntrace, tcpdump), goal)
}
