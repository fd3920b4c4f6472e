//! A TCP connection as fast as it goes, both ways: what is left of its throughput, and what the capture uses.

use anyhow::{Context, Result};
use nsntrace_tests::{Lab, SERVER_ADDRESS};

use crate::{
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
    let mut rows = Vec::new();
    for snaplen in [None, Some("256")] {
        for (way, option) in [("sent", ""), ("received", "--reverse")] {
            rows.extend(one_way(rounds, snaplen, way, option)?);
        }
    }
    Ok(rows)
}

fn one_way(rounds: usize, snaplen: Option<&str>, way: &str, option: &str) -> Result<Vec<Row>> {
    let capture = Capture { output: "/dev/null", snaplen, ..Capture::default() };
    let contestants = [Who::Nothing, Who::Tcpdump, Who::Dumpcap, Who::Nsntrace].map(|who| (who, capture));
    let results = sessions(rounds, &contestants, Lab::iperf, |contestant: &mut Contestant| {
        contestant.turn(|sender| throughput(sender, option))
    })?;
    let work = match snaplen {
        None => format!("bulk, {way}"),
        Some(snaplen) => format!("bulk, {way}, -s {snaplen}"),
    };
    let speeds = |bound: &str| {
        let mut row = Row::new(&work, format!("Gbit/s{bound}"));
        for (which, (who, _)) in contestants.iter().enumerate() {
            row = row.with(*who, results.taken(which));
        }
        row
    };
    let spent = &results.spent;
    let lost = |which: usize| Estimate::exact(100.0 * (1.0 - spent[which].share()));
    let cost = |which: usize| Estimate::exact(spent[which].usage.seconds_per_gigabyte());
    let mut rows = vec![speeds("").at_least("of tcpdump's", results.taken_ratio(3, 1), 1.0)];
    if snaplen.is_some() {
        rows.push(
            Row::new(&work, "part of the throughput left")
                .with(Who::Tcpdump, results.taken_ratio(1, 0))
                .with(Who::Nsntrace, results.taken_ratio(3, 0))
                .at_least("left", results.taken_ratio(3, 0), NEARLY_ALL),
        );
    }
    rows.push(
        Row::new(&work, "% of packets lost")
            .with(Who::Tcpdump, lost(1))
            .with(Who::Dumpcap, lost(2))
            .with(Who::Nsntrace, lost(3))
            .at_most("lost", lost(3), lost(1).value),
    );
    rows.push(
        Row::new(&work, "s of processor for a GB written")
            .with(Who::Tcpdump, cost(1))
            .with(Who::Dumpcap, cost(2))
            .with(Who::Nsntrace, cost(3))
            .at_most("s", cost(3), cost(1).value),
    );
    Ok(rows)
}

/// A second of a connection, in Gbit/s as the receiver sees them.
fn throughput(sender: &mut Sender, option: &str) -> Result<f64> {
    sender.ask(&format!("iperf3 --client {SERVER_ADDRESS} --time 1 --json {option} >iperf.json; echo $?"))?;
    let answer = std::fs::read(sender.dir().join("iperf.json"))?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    let speed = answer["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(speed.with_context(|| format!("iperf3: {answer}"))? / 1e9)
}
