//! What a process has used so far, as the kernel counts it.

use std::{fs, ops::AddAssign};

use anyhow::{Context, Result};
use nix::unistd::Pid;

/// Processor time and bytes written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Nanoseconds on a processor, of all threads that are there.
    pub busy: f64,
    /// Bytes that were given to write(2) and its like.
    pub written: f64,
}

impl Usage {
    /// Of a process, up to now.
    pub fn of(pid: Pid) -> Result<Self> {
        let mut busy = 0.0;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // One that ends meanwhile is not there any more.
            let Ok(times) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            busy += first_number(&times)?;
        }
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: ")).context("no wchar")?;
        Ok(Self { busy, written: first_number(written)? })
    }

    /// What has come since.
    pub fn since(self, before: Self) -> Self {
        Self { busy: self.busy - before.busy, written: self.written - before.written }
    }

    /// Seconds of processor time for a gigabyte.
    pub fn seconds_per_gigabyte(self) -> f64 {
        self.busy / self.written
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.busy += more.busy;
        self.written += more.written;
    }
}

/// Nanoseconds that the thread of this name was busy so far.
pub fn busy_thread(pid: Pid, name: &str) -> Result<f64> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        if fs::read_to_string(thread.join("comm"))?.trim_end() == name {
            return first_number(&fs::read_to_string(thread.join("schedstat"))?);
        }
    }
    anyhow::bail!("process {pid} has no thread {name}")
}

/// Kilobytes of a process in memory, without what the kernel's ring buffers have there.
pub fn resident(pid: Pid) -> Result<f64> {
    let mut sum = 0.0;
    let mut counts = false;
    for line in fs::read_to_string(format!("/proc/{pid}/smaps"))?.lines() {
        if let Some(rest) = line.strip_prefix("Rss:") {
            sum += if counts { first_number(rest.trim_start())? } else { 0.0 };
        } else if line.split(' ').next().is_some_and(|range| range.contains('-')) {
            counts = !line.contains("bpf-map");
        }
    }
    Ok(sum)
}

fn first_number(text: &str) -> Result<f64> {
    let number = text.split_whitespace().next().context("no number")?;
    number.parse().with_context(|| format!("{number:?} is no number"))
}
