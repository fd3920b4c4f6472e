//! Small UDP packets, as fast as one sender can: what a capture adds to the price of each.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{Lab, SERVER_ADDRESS};

use crate::statistics::{Estimate, estimate, median};

/// Packets of a run.
const COUNT: u64 = 300_000;

/// Of tcpdump's price, nsntrace is to take at most so much.
const GOAL: f64 = 1.0 / 3.0;

/// Who captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contestant {
    Nobody,
    Tcpdump,
    Nsntrace,
}

/// Nanoseconds a packet of each, in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    nobody: f64,
    tcpdump: f64,
    nsntrace: f64,
}

/// Runs the contestants in turn and prints what they cost.
pub fn bench(rounds: usize) -> Result<()> {
    compare(rounds, None)
}

/// The same, with an expression that both are given and that nothing of the flood matches.
pub fn compare(rounds: usize, filter: Option<&str>) -> Result<()> {
    ensure!(rounds > 1, "a median needs rounds");
    let mut results = Vec::new();
    for number in 0..rounds {
        let mut turn = [Contestant::Nobody, Contestant::Tcpdump, Contestant::Nsntrace];
        turn.rotate_left(number % 3);
        let mut round = Round::default();
        for contestant in turn {
            *round.of(contestant) = run(contestant, filter)?;
        }
        eprintln!(
            "round {}: nobody {:.0} ns, tcpdump {:+.0}, nsntrace {:+.0}",
            number + 1,
            round.nobody,
            round.tcpdump - round.nobody,
            round.nsntrace - round.nobody
        );
        results.push(round);
    }
    report(&results, filter);
    Ok(())
}

impl Round {
    fn of(&mut self, contestant: Contestant) -> &mut f64 {
        match contestant {
            Contestant::Nobody => &mut self.nobody,
            Contestant::Tcpdump => &mut self.tcpdump,
            Contestant::Nsntrace => &mut self.nsntrace,
        }
    }
}

/// Waits, in a shell, until a file says something.
const SAYS: &str = "says() { until grep -q \"$2\" \"$1\"; do sleep 0.01; done; }";

/// One run, in nanoseconds a packet.
///
/// All of them are below nsntrace, so that namespace, veth and NAT are the same; where it is not to capture, its
/// capture has ended with the first packet.
fn run(contestant: Contestant, filter: Option<&str>) -> Result<f64> {
    let lab = Lab::new()?;
    let _sink = lab.udp_sink(9)?;
    let script = format!("{SAYS}\n{}", script(contestant, filter.unwrap_or_default()));
    let filter = filter.map(|expression| ["-f", expression]);
    let options = match &filter {
        _ if contestant != Contestant::Nsntrace => &["-c", "1"][..],
        Some(filter) => &filter[..],
        None => &[],
    };
    let job = lab.nsntrace(options.iter().copied().chain(["sh", "-c", &script]))?;
    let stderr = job.dir().with_extension("stderr");
    let job = job.env("SAID", stderr.to_str().context("the lab's path is not text")?);
    let done = job.limit(Duration::from_secs(120)).run()?.exited(0)?;
    if contestant == Contestant::Nsntrace {
        // A packet that is not kept costs less.
        ensure!(done.dropped()? == 0, "packets were dropped: {}", done.stderr);
    }
    let text = done.text();
    let (sent, nanoseconds) =
        text.trim().split_once(' ').with_context(|| format!("the sender says {text:?}"))?;
    ensure!(sent.parse() == Ok(COUNT), "the sender sent {sent}");
    Ok(nanoseconds.parse::<f64>()? / COUNT as f64)
}

/// What runs in the namespace: a first packet, then the flood.
fn script(contestant: Contestant, filter: &str) -> String {
    // It is built beside this program.
    let program = std::env::current_exe().unwrap_or_default().with_file_name("flood");
    let flood = |count: u64| format!("{} {SERVER_ADDRESS}:9 {count}", program.display());
    let (first, all) = (flood(1), flood(COUNT));
    match contestant {
        Contestant::Nobody => format!("{first} >&2; says \"$SAID\" Finished; {all}"),
        Contestant::Nsntrace => format!("{first} >&2; {all}"),
        Contestant::Tcpdump => format!(
            "{first} >&2; says \"$SAID\" Finished\n\
             device=$(ls /proc/sys/net/ipv4/conf | grep nscap)\n\
             tcpdump -i $device -B 65536 -w dump.pcap '{filter}' 2>dump.err & dump=$!\n\
             says dump.err listening; {all}; kill -INT $dump; wait $dump"
        ),
    }
}

fn report(rounds: &[Round], filter: Option<&str>) {
    let tcpdump = |rounds: &[Round]| median_of(rounds, |round| round.tcpdump - round.nobody);
    let nsntrace = |rounds: &[Round]| median_of(rounds, |round| round.nsntrace - round.nobody);
    let ratio = estimate(rounds, |rounds| nsntrace(rounds) / tcpdump(rounds));
    let count = rounds.len();
    println!(
        "{COUNT} UDP packets of 64 bytes a run, {count} rounds: medians of paired differences, 95 % intervals"
    );
    if let Some(filter) = filter {
        println!("filtered by '{filter}', which none of them matches");
    }
    println!("nothing attached  {:>6.0} ns a packet", median_of(rounds, |round| round.nobody));
    print("tcpdump -w adds", estimate(rounds, tcpdump), "ns");
    print("nsntrace adds", estimate(rounds, nsntrace), "ns");
    print("of tcpdump's", ratio, "");
    let verdict = match ratio {
        Estimate { high, .. } if high <= GOAL => "yes",
        Estimate { low, .. } if low > GOAL => "NO",
        _ => "undecided, the noise is too large",
    };
    println!("at most a third of tcpdump's price: {verdict}");
}

fn median_of(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    median(&rounds.iter().map(figure).collect::<Vec<_>>())
}

fn print(what: &str, Estimate { value, low, high }: Estimate, unit: &str) {
    let digits = if unit.is_empty() { 2 } else { 0 };
    println!("{what:<17} {value:>6.digits$} {unit:<2} ({low:.digits$} to {high:.digits$})");
}
