//! The flood out of the namespace and into it: what the owners of packets cost, beside tcpdump, which knows nothing of them.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{HOST_ADDRESS, Lab, Running, SERVER_ADDRESS, Server};

use crate::{
    flood::COUNT,
    report::{Row, Who as Column},
    sender::{SHELL, Sender},
    statistics::{estimate, median_of},
};

/// Nobody, tcpdump, a plain trace, and one whose packets have owners.
const CONTESTANTS: [Who; 4] = [Who::Nobody, Who::Tcpdump, Who::Plain, Who::Owners];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    Tcpdump,
    Plain,
    Owners,
}

/// Which way the packets go, seen from the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

/// Nanoseconds a packet of each, in one round.
type Round = [f64; CONTESTANTS.len()];

/// Lets the contestants take turns, one way and the other.
pub fn bench(rounds: usize) -> Result<Vec<Row>> {
    ensure!(rounds > 1, "a median needs rounds");
    let mut rows = Vec::new();
    for way in [Way::Out, Way::In] {
        rows.extend(report(way, &measure(way, rounds)?));
    }
    Ok(rows)
}

fn measure(way: Way, rounds: usize) -> Result<Vec<Round>> {
    let contestants = CONTESTANTS.into_iter().map(|who| Contestant::new(who, way));
    let mut contestants = contestants.collect::<Result<Vec<_>>>()?;
    let mut results = vec![Round::default(); rounds];
    let mut order = [0, 1, 2, 3];
    for round in &mut results {
        for which in order {
            round[which] = contestants[which].turn()?;
        }
        order.rotate_left(1);
    }
    contestants.into_iter().try_for_each(Contestant::end)?;
    Ok(results)
}

/// One of them, on a host of its own. All are below nsntrace, whose capture has ended with the first packet where it is not
/// to capture.
struct Contestant {
    who: Who,
    sender: Sender,
    /// The trace, where it is not the sender.
    trace: Option<Running>,
    _sink: Option<Server>,
    lab: Lab,
}

/// Takes what comes and never reads it, until stdin ends.
const SINK: &str = "
import socket, sys
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind(('0.0.0.0', 9))
print('listening', flush=True)
sys.stdin.read()
";

impl Contestant {
    fn new(who: Who, way: Way) -> Result<Self> {
        let lab = Lab::new()?;
        let options: &[&str] = match who {
            Who::Nobody | Who::Tcpdump => &["-c", "1"],
            Who::Plain => &[],
            Who::Owners => &["-o", "x.pcapng"],
        };
        let (mut sender, mut trace, sink) = match way {
            Way::Out => {
                let sink = lab.udp_sink(9)?;
                (
                    Sender::start(lab.nsntrace(options.iter().chain(&SHELL))?, SERVER_ADDRESS)?,
                    None,
                    Some(sink),
                )
            }
            Way::In => {
                let words = ["-p", "9/udp", "python3", "-c", SINK];
                let mut trace = lab.nsntrace(options.iter().chain(&words))?.told().spawn()?;
                trace.says("listening")?;
                (Sender::start(lab.internet(SHELL)?, HOST_ADDRESS)?, Some(trace), None)
            }
        };
        sender.flood(1)?;
        if matches!(who, Who::Nobody | Who::Tcpdump) {
            match &mut trace {
                Some(trace) => trace.complains("Finished").map(drop)?,
                None => sender.complains("Finished")?,
            }
        }
        Ok(Self { who, sender, trace, _sink: sink, lab })
    }

    /// One turn, in nanoseconds a packet. tcpdump is there only meanwhile: with it all packets of the machine get a time.
    fn turn(&mut self) -> Result<f64> {
        if self.who != Who::Tcpdump {
            return self.sender.flood(COUNT);
        }
        let namespace = self.trace.as_ref().map_or_else(|| self.sender.pid(), Running::pid);
        let script = r#"
            child=$(cat /proc/"$1"/task/*/children | tr ' ' '\n' | while read -r pid; do
                [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/"$1"/ns/net)" ] || echo "$pid"
            done | head -1)
            device=$(nsenter --target "$child" --net sh -c 'ip -o link' | grep -o 'nscap[0-9]*' | head -1)
            exec nsenter --target "$child" --net tcpdump -i "$device" -B 65536 -w dump.pcap"#;
        let job = self.lab.host(["sh", "-c", script, "sh", &namespace.to_string()])?;
        let mut dump = job.spawn()?;
        dump.complains("listening on")?;
        let price = self.sender.flood(COUNT)?;
        dump.signal(Signal::SIGINT)?;
        dump.wait()?.exited(0)?;
        Ok(price)
    }

    /// A packet that is not kept costs less.
    fn end(self) -> Result<()> {
        let sent = self.sender.end()?;
        let done = match self.trace {
            Some(mut trace) => {
                drop(trace.stdin_pipe()?);
                trace.wait()?.exited(0)?
            }
            None => sent,
        };
        ensure!(done.dropped()? == 0, "packets were dropped: {}", done.stderr);
        Ok(())
    }
}

fn report(way: Way, rounds: &[Round]) -> Vec<Row> {
    let name = if way == Way::Out { "out" } else { "in" };
    let adds = |which: usize, to: usize| {
        estimate(rounds, move |rounds: &[Round]| median_of(rounds, |round| round[which] - round[to]))
    };
    let nothing = estimate(rounds, |rounds| median_of(rounds, |round| round[0]));
    let row = |work: &str, figure| {
        let row = Row::new(format!("flood {name}, {work}"), "ns added to a packet");
        row.with(Column::Nothing, nothing).with(Column::Tcpdump, adds(1, 0)).with(Column::Nsntrace, figure)
    };
    vec![
        row("pcap", adds(2, 0)),
        row("pcapng with owners", adds(3, 0)).at_most("more than tcpdump", adds(3, 1), 0.0),
    ]
}
