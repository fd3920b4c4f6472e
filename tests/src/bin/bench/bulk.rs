//! A TCP connection as fast as it goes, both ways: what is left of its throughput, and what the capture uses.

use anyhow::{Context, Result};
use nsntrace_tests::{Lab, SERVER_ADDRESS};

use crate::{
    awake::Awake,
    contestant::{Capture, Contestant},
    report::{Row, Who},
    sender::Sender,
    sessions::sessions,
    statistics::Estimate,
};

/// Where packets are cut, a capture is to leave this much of the throughput.
const NEARLY_ALL: f64 = 0.97;

/// Both ways, with whole packets and with cut ones.
pub fn bench(rounds: usize) -> Result<Vec<Row>> {
    let _awake = Awake::begin()?;
    let mut rows = Vec::new();
    // Cut ones cost so little that it takes more rounds to see it.
    for (snaplen, rounds) in [(None, rounds), (Some("256"), 5 * rounds)] {
        for (way, option) in [("sent", ""), ("received", "--reverse")] {
            rows.extend(one_way(rounds, snaplen, way, option)?);
        }
    }
    Ok(rows)
}

fn one_way(rounds: usize, snaplen: Option<&str>, way: &str, option: &str) -> Result<Vec<Row>> {
    let capture = Capture { output: "/dev/null", snaplen, ..Capture::default() };
    let mut contestants = vec![Who::Nothing, Who::Tcpdump, Who::Nsntrace];
    // It leaves the throughput that tcpdump does: where more rounds are needed its time is better spent on them.
    contestants.extend(snaplen.is_none().then_some(Who::Dumpcap));
    let contestants: Vec<_> = contestants.into_iter().map(|who| (who, capture)).collect();
    let results = sessions(rounds, &contestants, Lab::iperf, |contestant: &mut Contestant| {
        contestant.turn(|sender| throughput(sender, option))
    })?;
    let work = match snaplen {
        None => format!("bulk, {way}"),
        Some(snaplen) => format!("bulk, {way}, -s {snaplen}"),
    };
    let row = |measure: &str, first: usize, figure: &dyn Fn(usize) -> Estimate| {
        let row = Row::new(&work, measure);
        (first..contestants.len()).fold(row, |row, which| row.with(contestants[which].0, figure(which)))
    };
    let taken = |which: usize| results.taken(which);
    let left = |which: usize| results.taken_ratio(which, 0);
    let spent = &results.spent;
    let lost = |which: usize| Estimate::exact(100.0 * (1.0 - spent[which].share()));
    let cost = |which: usize| Estimate::exact(spent[which].usage.seconds_per_gigabyte());
    let mut rows = vec![row("Gbit/s", 0, &taken).at_least("of tcpdump's", results.taken_ratio(2, 1), 1.0)];
    if snaplen.is_some() {
        let row = row("part of the throughput left", 1, &left);
        rows.push(row.at_least("left", left(2), NEARLY_ALL));
    }
    rows.push(row("% of packets lost", 1, &lost).at_most("lost", lost(2), lost(1).value));
    let row = row("s of processor for a GB written", 1, &cost);
    rows.push(row.at_most("s", cost(2), cost(1).value));
    Ok(rows)
}

/// What is sent in a turn. It takes a fraction of a second: a machine that shares its processors is now slow, now fast, and those
/// who are compared are to meet the same of it.
const AMOUNT: &str = "512M";

/// Of a connection that brings so much, in Gbit/s as the receiver sees them.
fn throughput(sender: &mut Sender, option: &str) -> Result<f64> {
    sender.ask(&format!(
        "iperf3 --client {SERVER_ADDRESS} --bytes {AMOUNT} --json {option} >iperf.json; echo $?"
    ))?;
    let answer = std::fs::read(sender.dir().join("iperf.json"))?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    let speed = answer["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(speed.with_context(|| format!("iperf3: {answer}"))? / 1e9)
}
