//! A shell in the lab that does as it is told, and says how long that took.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{ChildStdin, ChildStdout},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use nsntrace_tests::{Done, Job, Running, beside};

/// More than a bench takes.
const LIMIT: Duration = Duration::from_secs(3600);

/// What a [`Sender`] runs: each line that it gets, and nothing of that reads the next.
pub const SHELL: [&str; 3] = ["sh", "-c", "while read -r line; do eval \"$line\" </dev/null; done"];

/// It lives for the whole of a bench, so that turns can be short.
pub struct Sender {
    running: Running,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    address: &'static str,
}

impl Sender {
    /// Starts a job that runs [`SHELL`]; what it sends goes to this address.
    pub fn start(job: Job, address: &'static str) -> Result<Self> {
        let mut running = job.told().piped().limit(LIMIT).spawn()?;
        let stdin = running.stdin_pipe()?;
        let answers = BufReader::new(running.stdout_pipe()?).lines();
        Ok(Self { running, stdin, answers, address })
    }

    /// Waits until the job has said this on stderr.
    pub fn complains(&mut self, text: &str) -> Result<()> {
        self.running.complains(text).map(drop)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.running.pid()
    }

    /// Its working directory.
    pub fn dir(&self) -> &Path {
        self.running.dir()
    }

    /// Runs a command, and returns the line that it answers.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.stdin, "{command}")?;
        Ok(self.answers.next().with_context(|| format!("no answer to {command}"))??)
    }

    /// Has so many packets sent. Returns the nanoseconds that each has taken.
    pub fn flood(&mut self, count: u32) -> Result<f64> {
        self.flood_by(1, count)
    }

    /// Has so many packets sent by each of some senders at once. Returns the nanoseconds for each packet of all of them.
    pub fn flood_by(&mut self, senders: u32, count: u32) -> Result<f64> {
        let answer = self.ask(&format!("{} {}:9 {count} {senders}", beside("flood")?, self.address))?;
        let (sent, nanoseconds) =
            answer.split_once(' ').with_context(|| format!("the sender says {answer:?}"))?;
        ensure!(sent.parse() == Ok(senders * count), "the sender sent {sent}");
        Ok(nanoseconds.parse::<f64>()? / f64::from(senders * count))
    }

    /// Ends it.
    pub fn end(self) -> Result<Done> {
        drop((self.stdin, self.answers));
        self.running.wait()?.exited(0)
    }
}
