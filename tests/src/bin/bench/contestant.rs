//! Those who are compared, each on a host of its own.

use std::ops::AddAssign;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{Done, Lab, Running, Server, number_before};

use crate::{
    namespace::Namespace,
    report::Who,
    sender::{SHELL, Sender},
    usage::Usage,
};

/// What a contestant is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capture<'a> {
    /// The file that it writes.
    pub output: &'a str,
    /// `-s`.
    pub snaplen: Option<&'a str>,
    /// The expression of the filter.
    pub filter: Option<&'a str>,
    /// The binary of the original nsntrace, for that one.
    pub original: Option<&'a str>,
}

/// One of them. All are below nsntrace, so that namespace, veth and NAT are the same; where it is not to capture, its capture
/// has ended with the first packet.
pub struct Contestant<'a> {
    /// Who it is.
    pub who: Who,
    capture: Capture<'a>,
    /// Where it captures.
    pub namespace: Namespace,
    spent: Spent,
}

/// What its capture has seen and used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Packets that are in the trace.
    pub captured: u64,
    /// Packets that it tells to have lost.
    pub dropped: u64,
    /// Of its processes, where they are known.
    pub usage: Usage,
}

impl AddAssign for Spent {
    fn add_assign(&mut self, more: Self) {
        self.captured += more.captured;
        self.dropped += more.dropped;
        self.usage += more.usage;
    }
}

impl Spent {
    /// The part of all packets that is in the trace.
    pub fn share(self) -> f64 {
        self.captured as f64 / (self.captured + self.dropped) as f64
    }
}

impl<'a> Contestant<'a> {
    /// Starts it on a host where this server runs in the internet.
    pub fn new(who: Who, capture: Capture<'a>, serve: fn(&Lab) -> Result<Server>) -> Result<Self> {
        let trace = |lab: &Lab| match (who, capture.original) {
            (Who::Original, Some(binary)) => {
                lab.tracer([binary].iter().chain(&capture.original()).chain(&SHELL))
            }
            (Who::Nsntrace, _) => lab.nsntrace(capture.nsntrace().iter().chain(&SHELL)),
            _ => lab.nsntrace(["-c", "1"].iter().chain(&SHELL)),
        };
        let mut namespace = Namespace::with(serve, trace)?;
        if !matches!(who, Who::Nsntrace | Who::Original) {
            namespace.capture_ends()?;
        }
        Ok(Self { who, capture, namespace, spent: Spent::default() })
    }

    /// Has this done while it captures. tcpdump and dumpcap are there only meanwhile: with such a socket anywhere, all
    /// packets of the machine get a time.
    pub fn turn<T>(&mut self, work: impl FnOnce(&mut Sender) -> Result<T>) -> Result<T> {
        let Some(rival) = self.rival()? else {
            let sender = &mut self.namespace.sender;
            let before = Usage::of(sender.pid())?;
            let result = work(sender)?;
            self.spent.usage += Usage::of(sender.pid())?.since(before);
            return Ok(result);
        };
        let before = Usage::of(rival.pid())?;
        let result = work(&mut self.namespace.sender)?;
        let usage = Usage::of(rival.pid())?.since(before);
        rival.signal(Signal::SIGINT)?;
        let (captured, dropped) = counts(self.who, &rival.wait()?.exited(0)?)?;
        self.spent += Spent { captured, dropped, usage };
        Ok(result)
    }

    /// Starts who captures from inside the namespace, if that is how it does it.
    fn rival(&self) -> Result<Option<Running>> {
        let device = self.namespace.device();
        let (words, ready) = match self.who {
            Who::Tcpdump => (self.capture.tcpdump(&device), "listening on"),
            // It says so when its file is open.
            Who::Dumpcap => (self.capture.dumpcap(&device), "File: "),
            _ => return Ok(None),
        };
        let mut rival = self.namespace.inside(&words)?.spawn()?;
        rival.complains(ready)?;
        Ok(Some(rival))
    }

    /// Ends it. Returns what its captures were, altogether.
    pub fn end(self) -> Result<Spent> {
        let done = self.namespace.end()?;
        let mut spent = self.spent;
        if self.who == Who::Nsntrace {
            (spent.captured, spent.dropped) = (done.captured()?, done.dropped()?);
        }
        Ok(spent)
    }
}

impl<'a> Capture<'a> {
    fn tcpdump(&self, device: &'a str) -> Vec<&'a str> {
        let mut words = vec!["tcpdump", "-i", device, "-B", "65536", "-w", self.output];
        words.extend(self.snaplen.map(|snaplen| ["-s", snaplen]).iter().flatten());
        words.extend(self.filter);
        words
    }

    fn dumpcap(&self, device: &'a str) -> Vec<&'a str> {
        let mut words = vec!["dumpcap", "-q", "-i", device, "-B", "64", "-w", self.output];
        words.extend(self.snaplen.map(|snaplen| ["-s", snaplen]).iter().flatten());
        words.extend(self.filter.map(|filter| ["-f", filter]).iter().flatten());
        words
    }

    fn nsntrace(&self) -> Vec<&'a str> {
        let mut words = vec!["-o", self.output];
        words.extend(self.snaplen.map(|snaplen| ["-s", snaplen]).iter().flatten());
        words.extend(self.filter.map(|filter| ["-f", filter]).iter().flatten());
        words
    }

    /// It knows no other options for what is captured.
    fn original(&self) -> Vec<&'a str> {
        let mut words = vec!["-o", self.output];
        words.extend(self.filter.map(|filter| ["-f", filter]).iter().flatten());
        words
    }
}

/// Packets captured and dropped, as a rival says at its end.
fn counts(who: Who, done: &Done) -> Result<(u64, u64)> {
    if who == Who::Tcpdump {
        // What it has not yet read when it is ended is not lost: it would have.
        let received = number_before(done.line_with(" packets received by filter")?, " packet")?;
        let dropped = number_before(done.line_with(" packets dropped by kernel")?, " packet")?;
        return Ok((received - dropped.min(received), dropped));
    }
    let line = done.line_with("Packets received/dropped on interface")?;
    let (_, counts) = line.split_once("': ").with_context(|| format!("no counts in {line:?}"))?;
    let (received, rest) = counts.split_once('/').with_context(|| format!("no counts in {line:?}"))?;
    let (dropped, _) = rest.split_once(' ').with_context(|| format!("no counts in {line:?}"))?;
    ensure!(!received.is_empty(), "no counts in {line:?}");
    Ok((received.parse()?, dropped.parse()?))
}
