//! The flood from a cgroup of the host, beside the same in a namespace: what a traced cgroup pays for each packet, and
//! what another one pays meanwhile.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{Cgroup, Lab, SERVER_ADDRESS, Server};

use crate::{
    flood::COUNT,
    namespace::Namespace,
    report::{Row, Who},
    sender::{SHELL, Sender},
    statistics::{estimate, median_of},
};

/// A price of fewer nanoseconds is none: one access to memory that is not in a cache takes longer.
const NOTHING: f64 = 20.0;

/// Nanoseconds a packet, in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// From a cgroup, while none is traced.
    plain: f64,
    /// From a cgroup that is traced.
    traced: f64,
    /// From a cgroup beside a traced one.
    beside: f64,
    /// From a namespace of nsntrace's whose capture has ended.
    namespace: f64,
    /// From a namespace that is traced.
    traced_namespace: f64,
}

/// Lets the places take turns.
pub fn bench(rounds: usize) -> Result<Vec<Row>> {
    ensure!(rounds > 1, "a median needs rounds");
    let mut host = Host::new()?;
    let mut namespace = Namespace::new(&["-c", "1"])?;
    namespace.capture_ends()?;
    let mut traced_namespace = Namespace::new(&[])?;
    let mut results = Vec::new();
    for number in 0..rounds {
        let mut round = Round::default();
        for turn in 0..5 {
            match (number + turn) % 5 {
                0 => round.plain = host.turn(None)?,
                1 => round.traced = host.turn(Some("flood"))?,
                2 => round.beside = host.turn(Some("idle"))?,
                3 => round.namespace = namespace.sender.flood(COUNT)?,
                _ => round.traced_namespace = traced_namespace.sender.flood(COUNT)?,
            }
        }
        results.push(round);
    }
    host.sender.end()?;
    namespace.end()?;
    let done = traced_namespace.end()?;
    ensure!(done.dropped()? == 0, "packets were dropped: {}", done.stderr);
    Ok(report(&results))
}

/// A host with two cgroups: from one comes the flood, and nobody is in the other.
struct Host {
    sender: Sender,
    _sink: Server,
    cgroups: [Cgroup; 2],
    lab: Lab,
}

impl Host {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let sink = lab.udp_sink(9)?;
        let cgroups = [lab.cgroup("flood")?, lab.cgroup("idle")?];
        let mut sender = Sender::start(lab.host_in(&cgroups[0], SHELL)?, SERVER_ADDRESS)?;
        sender.flood(1)?;
        Ok(Self { sender, _sink: sink, cgroups, lab })
    }

    /// One turn, in nanoseconds a packet, while the cgroup of this name is traced. The trace is there only meanwhile: with
    /// the first program at any cgroup, all packets of the machine are looked at.
    fn turn(&mut self, traced: Option<&str>) -> Result<f64> {
        let Some(name) = traced else { return self.sender.flood(COUNT) };
        let cgroup = self.cgroups.iter().find(|cgroup| cgroup.path().ends_with(name)).context("no cgroup")?;
        let path = cgroup.path().to_str().context("a path")?;
        let mut trace = self.lab.nsntrace(["--cgroup", path])?.spawn()?;
        trace.complains("Use ctrl-c")?;
        let price = self.sender.flood(COUNT)?;
        trace.signal(Signal::SIGINT)?;
        let done = trace.wait()?.exited(0)?;
        // A packet that is not kept costs less.
        let expected = if name == "flood" { COUNT } else { 0 };
        ensure!(done.captured()? == u64::from(expected), "not all was captured: {}", done.stderr);
        Ok(price)
    }
}

fn report(rounds: &[Round]) -> Vec<Row> {
    let adds =
        |figure: fn(&Round) -> f64| estimate(rounds, move |rounds: &[Round]| median_of(rounds, figure));
    let plain = adds(|round| round.plain);
    let traced = adds(|round| round.traced - round.plain);
    let beside = adds(|round| round.beside - round.plain);
    let more = adds(|round| round.traced - round.traced_namespace);
    let row = |work: &str| Row::new(work, "ns added to a packet").with(Who::Nothing, plain);
    vec![
        row("flood from a --cgroup").with(Who::Nsntrace, traced).at_most(
            "more than in a namespace",
            more,
            0.0,
        ),
        row("flood from another cgroup").with(Who::Nsntrace, beside).at_most("ns", beside, NOTHING),
        row("flood from a namespace, its capture alone")
            .with(Who::Nsntrace, adds(|round| round.traced_namespace - round.namespace)),
        row("flood from a namespace, with veth and NAT")
            .with(Who::Nsntrace, adds(|round| round.traced_namespace - round.plain)),
    ]
}
