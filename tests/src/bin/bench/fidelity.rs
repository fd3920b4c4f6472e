//! The times of packets, beside those that tcpdump gives the same packets.

use std::{collections::HashMap, fs::File, io::BufReader, path::Path};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{SERVER_ADDRESS, SOON, beside, until};

use crate::{
    namespace::Namespace,
    pcap::{Packet, Packets},
    report::{Row, Who},
    sender::SHELL,
    statistics::{Estimate, estimate, quantile},
};

/// Packets of a round, each of which comes back.
const COUNT: usize = 2000;

/// Microseconds between two of them, on average.
const PAUSE: &str = "300";

/// How far the times may be apart, in microseconds.
const GOAL: f64 = 50.0;

/// Both capture at once.
pub fn bench(rounds: usize) -> Result<Vec<Row>> {
    let mut apart = Vec::new();
    let mut backwards = 0;
    for _ in 0..rounds {
        let (ours, theirs) = both()?;
        backwards += ours.windows(2).filter(|pair| pair[1].time < pair[0].time).count();
        let theirs: HashMap<_, _> =
            theirs.iter().filter_map(|packet| Some((packet.drop()?, packet.time))).collect();
        for packet in &ours {
            if let Some(other) = packet.drop().and_then(|key| theirs.get(&key)) {
                apart.push((packet.time - other).abs() as f64 / 1000.0);
            }
        }
    }
    ensure!(apart.len() == 2 * COUNT * rounds, "{} packets are in both", apart.len());
    let late = estimate(&apart, |sample| quantile(sample, 0.99));
    let backwards = Estimate::exact(backwards as f64);
    Ok(vec![
        Row::new("fidelity, against tcpdump's times", "µs apart, 99th percentile")
            .with(Who::Nsntrace, late)
            .at_most("µs", late, GOAL),
        Row::new("fidelity", "packets with a time before the last one's")
            .with(Who::Nsntrace, backwards)
            .at_most("backwards", backwards, 0.0),
    ])
}

/// The packets of nsntrace, and those of tcpdump in the same namespace.
fn both() -> Result<(Vec<Packet>, Vec<Packet>)> {
    let folder = tempfile::tempdir()?;
    let trace = folder.path().join("nsntrace.pcap");
    let words = [&["-o", trace.to_str().context("a path")?], &SHELL[..]].concat();
    let mut namespace = Namespace::with(|lab| lab.udp_echo(9), |lab| lab.nsntrace(words))?;
    let device = namespace.device();
    let dump = ["tcpdump", "-i", &device, "--time-stamp-precision=nano", "-U", "-w", "dump.pcap"];
    let mut dump = namespace.inside(&dump)?.spawn()?;
    dump.complains("listening on")?;
    namespace.sender.ask(&format!("{} {SERVER_ADDRESS}:9 {COUNT} {PAUSE}", beside("drip")?))?;
    let file = dump.dir().join("dump.pcap");
    let theirs = until("tcpdump to have all of them", SOON, || {
        let packets = packets(&file)?;
        let drops = packets.iter().filter(|packet| packet.drop().is_some()).count();
        Ok((drops == 2 * COUNT).then_some(packets))
    })?;
    dump.signal(Signal::SIGINT)?;
    dump.wait()?.exited(0)?;
    namespace.end()?;
    Ok((packets(&trace)?, theirs))
}

/// Those that are whole in a file.
fn packets(path: &Path) -> Result<Vec<Packet>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut reader = Packets::new(BufReader::new(file))?;
    let mut packets = Vec::new();
    while let Some(packet) = reader.next()? {
        packets.push(packet);
    }
    Ok(packets)
}
