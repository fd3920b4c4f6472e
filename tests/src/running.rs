//! A command in the lab that runs, and what it has left when it has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{SOON, Trace, until};

/// A command that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    words: String,
    dir: PathBuf,
    limit: Duration,
}

impl Running {
    pub(crate) fn new(child: Child, words: String, dir: PathBuf, limit: Duration) -> Self {
        Self { child, words, dir, limit }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to {}", self.words))
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.dir.with_extension("stdout"))?).into_owned())
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.dir.with_extension("stderr"))?).into_owned())
    }

    /// Waits until stdout contains `text`, and returns what is there by then.
    pub fn says(&mut self, text: &str) -> Result<String> {
        self.shows(text, Self::stdout)
    }

    /// Waits until stderr contains `text`, and returns what is there by then.
    pub fn complains(&mut self, text: &str) -> Result<String> {
        self.shows(text, Self::stderr)
    }

    fn shows(&mut self, text: &str, read: impl Fn(&Self) -> Result<String>) -> Result<String> {
        until(&format!("{text:?} from {}", self.words), SOON, || {
            let ended = self.child.try_wait()?.is_some();
            let so_far = read(self)?;
            if so_far.contains(text) {
                return Ok(Some(so_far));
            }
            ensure!(!ended, "{} ended without {text:?}; its stderr: {}", self.words, self.stderr()?);
            Ok(None)
        })
    }

    /// Its stdin, if the job was [`Job::told`](crate::Job::told); dropping it closes stdin.
    pub fn stdin_pipe(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().context("stdin is no pipe, or taken already")
    }

    /// Its stdout, if the job was [`Job::piped`](crate::Job::piped).
    pub fn stdout_pipe(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().context("stdout is no pipe, or taken already")
    }

    /// Its working directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it runs still.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end, within the job's limit.
    pub fn wait(mut self) -> Result<Done> {
        let status =
            until(&format!("the end of {}", self.words), self.limit, || Ok(self.child.try_wait()?));
        let status =
            status.with_context(|| format!("its stderr: {:?}", self.stderr().unwrap_or_default()))?;
        let stdout = fs::read(self.dir.with_extension("stdout"))?;
        let stderr = self.stderr()?;
        Ok(Done { status, stdout, stderr, words: self.words.clone(), dir: self.dir.clone() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the child has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
    /// Its working directory.
    pub dir: PathBuf,
    words: String,
}

impl Done {
    /// Itself, if it exited with this status.
    pub fn exited(self, status: i32) -> Result<Self> {
        if self.status.code() != Some(status) {
            let (words, got) = (&self.words, self.status);
            // Some have their say on stdout, which for others is a trace.
            let said = if self.stderr.is_empty() { self.text() } else { self.stderr.clone() };
            bail!("expected exit status {status}, got {got} from {words}, which says:\n{said}");
        }
        Ok(self)
    }

    /// What it wrote to stdout, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The trace that it wrote under the default name.
    pub fn trace(&self) -> Trace {
        self.trace_at("nsntrace.pcap")
    }

    /// The trace that it wrote under this name.
    pub fn trace_at(&self, name: &str) -> Trace {
        Trace::new(self.dir.join(name))
    }
}
