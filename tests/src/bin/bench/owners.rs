//! The flood out of the namespace and into it: what the owners of packets cost, beside tcpdump, which knows nothing of them.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::{
    flood::COUNT,
    namespace::Namespace,
    report::{Row, Who as Column},
    sender::Sender,
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
    namespace: Namespace,
    /// Who sends, where that is not the namespace.
    outside: Option<Sender>,
}

/// Takes what comes and never reads it, in one line.
const SINK: &str = "import signal, socket; sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
                    sink.bind(('0.0.0.0', 9)); print('listening', flush=True); signal.pause()";

impl Contestant {
    fn new(who: Who, way: Way) -> Result<Self> {
        let mut options = match who {
            Who::Nobody | Who::Tcpdump => vec!["-c", "1"],
            Who::Plain => vec![],
            Who::Owners => vec!["-o", "x.pcapng"],
        };
        if way == Way::In {
            options.extend(["-p", "9/udp"]);
        }
        let mut namespace = Namespace::new(&options)?;
        if matches!(who, Who::Nobody | Who::Tcpdump) {
            namespace.capture_ends()?;
        }
        let mut outside = None;
        if way == Way::In {
            namespace.sender.ask(&format!("python3 -c \"{SINK}\" &"))?;
            let sender = outside.insert(namespace.sender_outside()?);
            sender.flood(1)?;
        }
        Ok(Self { who, namespace, outside })
    }

    /// One turn, in nanoseconds a packet. tcpdump is there only meanwhile: with it all packets of the machine get a time.
    fn turn(&mut self) -> Result<f64> {
        if self.who != Who::Tcpdump {
            return self.flood();
        }
        let device = self.namespace.device();
        let words = ["tcpdump", "-i", &device, "-B", "65536", "-w", "dump.pcap"];
        let mut dump = self.namespace.inside(&words)?.spawn()?;
        dump.complains("listening on")?;
        let price = self.flood()?;
        dump.signal(Signal::SIGINT)?;
        dump.wait()?.exited(0)?;
        Ok(price)
    }

    fn flood(&mut self) -> Result<f64> {
        self.outside.as_mut().unwrap_or(&mut self.namespace.sender).flood(COUNT)
    }

    /// A packet that is not kept costs less.
    fn end(mut self) -> Result<()> {
        if let Some(sender) = self.outside {
            sender.end()?;
            self.namespace.sender.ask("kill $!; echo $?")?;
        }
        let done = self.namespace.end()?;
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
