//! Small UDP packets, as fast as one sender can: what a capture adds to the price of each.

use anyhow::{Result, ensure};
use nsntrace_tests::{Lab, SERVER_ADDRESS, Server};

use crate::{
    sender::{self, Sender},
    statistics::{estimate, median_of, print, verdict},
};

/// Packets of a turn: what disturbs the machine for longer than one lasts meets all contestants alike.
pub const COUNT: u32 = 60_000;

/// Rounds on the same hosts. Where a host's memory happens to lie makes some nanoseconds too.
const SESSION: usize = 10;

/// Of tcpdump's price, nsntrace is to take at most so much.
const GOAL: f64 = 1.0 / 3.0;

/// Who captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    Tcpdump,
    Nsntrace,
}

/// Nanoseconds a packet of each.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    nobody: f64,
    tcpdump: f64,
    nsntrace: f64,
}

/// Lets the contestants take turns and prints what they cost.
pub fn bench(rounds: usize) -> Result<()> {
    compare(rounds, None)
}

/// The same, with an expression that both are given and that nothing of the flood matches.
pub fn compare(rounds: usize, filter: Option<&str>) -> Result<()> {
    ensure!(rounds > 1, "a median needs rounds");
    let mut order = [Who::Nobody, Who::Tcpdump, Who::Nsntrace];
    let mut results = Vec::new();
    for _ in 0..rounds.div_ceil(SESSION) {
        order.rotate_left(1);
        results.push(session(&order, filter)?);
    }
    report(&results, filter);
    Ok(())
}

/// Some rounds on new hosts. Returns the medians of the paired differences to who captures nothing.
fn session(order: &[Who], filter: Option<&str>) -> Result<Round> {
    let contestants = order.iter().map(|who| Contestant::new(*who, filter));
    let mut contestants = contestants.collect::<Result<Vec<_>>>()?;
    let mut rounds = Vec::new();
    for _ in 0..SESSION {
        contestants.rotate_left(1);
        let mut round = Round::default();
        for contestant in &mut contestants {
            *round.of(contestant.who) = contestant.turn()?;
        }
        rounds.push(round);
    }
    for contestant in contestants {
        contestant.end()?;
    }
    Ok(Round {
        nobody: median_of(&rounds, |round| round.nobody),
        tcpdump: median_of(&rounds, |round| round.tcpdump - round.nobody),
        nsntrace: median_of(&rounds, |round| round.nsntrace - round.nobody),
    })
}

impl Round {
    fn of(&mut self, who: Who) -> &mut f64 {
        match who {
            Who::Nobody => &mut self.nobody,
            Who::Tcpdump => &mut self.tcpdump,
            Who::Nsntrace => &mut self.nsntrace,
        }
    }
}

/// One of them, on a host of its own: rules are looked at in turn, so who shared a host would pay for the others'.
///
/// All are below nsntrace, so that namespace, veth and NAT are the same; where it is not to capture, its capture has
/// ended with the first packet.
struct Contestant {
    who: Who,
    sender: Sender,
    _sink: Server,
    _lab: Lab,
}

impl Contestant {
    fn new(who: Who, filter: Option<&str>) -> Result<Self> {
        let lab = Lab::new()?;
        let sink = lab.udp_sink(9)?;
        let script = script(who, filter.unwrap_or_default());
        let filter = filter.map(|expression| ["-f", expression]);
        let options = match &filter {
            _ if who != Who::Nsntrace => &["-c", "1"][..],
            Some(filter) => &filter[..],
            None => &[],
        };
        let job = lab.nsntrace(options.iter().copied().chain(["sh", "-c", &script]))?;
        let mut sender = Sender::start(job)?;
        // Of nsntrace's own capture, where it is not to capture, this is the first and last packet.
        sender.flood(1)?;
        if who != Who::Nsntrace {
            sender.complains("Finished")?;
        }
        Ok(Self { who, sender, _sink: sink, _lab: lab })
    }

    /// One turn, in nanoseconds a packet.
    fn turn(&mut self) -> Result<f64> {
        self.sender.flood(COUNT)
    }

    /// A packet that is not kept costs less.
    fn end(self) -> Result<()> {
        let done = self.sender.end()?;
        ensure!(done.dropped()? == 0, "packets were dropped: {}", done.stderr);
        Ok(())
    }
}

/// What runs in the namespace: a flood for each line of stdin. tcpdump is there only meanwhile, for with it all packets
/// of the machine get a time.
fn script(who: Who, filter: &str) -> String {
    let flood = sender::command(SERVER_ADDRESS);
    match who {
        Who::Nobody | Who::Nsntrace => sender::commands(SERVER_ADDRESS),
        Who::Tcpdump => format!(
            "device=$(ls /proc/sys/net/ipv4/conf | grep nscap)
             while read -r count; do
                 : >dump.err
                 tcpdump -i $device -B 65536 -w dump.pcap '{filter}' 2>dump.err & dump=$!
                 until grep -q listening dump.err; do sleep 0.01; done
                 {flood}
                 kill -INT $dump; wait $dump
             done"
        ),
    }
}

fn report(sessions: &[Round], filter: Option<&str>) {
    let tcpdump = |sessions: &[Round]| median_of(sessions, |session| session.tcpdump);
    let nsntrace = |sessions: &[Round]| median_of(sessions, |session| session.nsntrace);
    let ratio = estimate(sessions, |sessions| nsntrace(sessions) / tcpdump(sessions));
    let count = sessions.len();
    println!(
        "{COUNT} UDP packets of 64 bytes a turn, {count} sessions of {SESSION} rounds: medians of paired differences, \
         95 % intervals"
    );
    if let Some(filter) = filter {
        println!("filtered by '{filter}', which none of them matches");
    }
    println!("nothing attached  {:>6.0} ns a packet", median_of(sessions, |session| session.nobody));
    print("tcpdump -w adds", estimate(sessions, tcpdump), "ns");
    print("nsntrace adds", estimate(sessions, nsntrace), "ns");
    print("of tcpdump's", ratio, "");
    let verdict = verdict(ratio.high <= GOAL, ratio.low > GOAL);
    println!("at most a third of tcpdump's price: {verdict}");
}
