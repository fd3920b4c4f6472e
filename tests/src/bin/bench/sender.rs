//! A process that floods when it is told to, and says how long that took.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{ChildStdin, ChildStdout},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use nsntrace_tests::{Done, Job, Lab, Running, SERVER_ADDRESS, Server};

/// More than a bench takes.
const LIMIT: Duration = Duration::from_secs(600);

/// It lives for the whole of a bench, so that turns can be short.
pub struct Sender {
    running: Running,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Sender {
    /// Starts a job that reads counts, a line each, and answers as [`command`] does.
    pub fn start(job: Job) -> Result<Self> {
        let mut running = job.told().piped().limit(LIMIT).spawn()?;
        let stdin = running.stdin_pipe()?;
        let answers = BufReader::new(running.stdout_pipe()?).lines();
        Ok(Self { running, stdin, answers })
    }

    /// Waits until the job has said this on stderr.
    pub fn complains(&mut self, text: &str) -> Result<()> {
        self.running.complains(text).map(drop)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.running.pid()
    }

    /// Has so many packets sent. Returns the nanoseconds that each has taken.
    pub fn flood(&mut self, count: u32) -> Result<f64> {
        writeln!(self.stdin, "{count}")?;
        let answer = self.answers.next().context("the sender has ended")??;
        let (sent, nanoseconds) =
            answer.split_once(' ').with_context(|| format!("the sender says {answer:?}"))?;
        ensure!(sent.parse() == Ok(count), "the sender sent {sent}");
        Ok(nanoseconds.parse::<f64>()? / f64::from(count))
    }

    /// Ends it.
    pub fn end(self) -> Result<Done> {
        drop((self.stdin, self.answers));
        self.running.wait()?.exited(0)
    }
}

/// A flood below nsntrace, on a host of its own.
pub struct Namespace {
    /// Who floods: its process is the tracer.
    pub sender: Sender,
    _sink: Server,
    _lab: Lab,
}

impl Namespace {
    /// Traces with these options; the first packet has passed when it returns.
    pub fn new(options: &[&str]) -> Result<Self> {
        let lab = Lab::new()?;
        let sink = lab.udp_sink(9)?;
        let job = lab.nsntrace(options.iter().chain(&["sh", "-c", &commands(SERVER_ADDRESS)]))?;
        let mut sender = Sender::start(job)?;
        sender.flood(1)?;
        Ok(Self { sender, _sink: sink, _lab: lab })
    }
}

/// In a shell: a flood of `$count` packets to an address, which says how many were sent and in how many nanoseconds.
pub fn command(address: &str) -> String {
    // It is built beside this program.
    let flood = std::env::current_exe().unwrap_or_default().with_file_name("flood");
    format!("{} {address}:9 $count", flood.display())
}

/// In a shell: a flood to an address for each line of stdin.
pub fn commands(address: &str) -> String {
    format!("while read -r count; do {}; done", command(address))
}
