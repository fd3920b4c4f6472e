//! Who of a run is killed.

use std::fs;

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Lab, Running};

/// What the guardian calls itself.
const GUARDIAN: &str = "netns-guardian";

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The tracer.
    Tracer,
    /// Its guardian.
    Guardian,
    /// The guardian, then at once the tracer.
    Both,
    /// The tracer, and the guardian in the middle of what it does then.
    OneAfterTheOther,
}

impl Victim {
    /// Kills them, as far as they live.
    pub fn kill(self, lab: &Lab, run: &Running) -> Result<()> {
        let guardian = lab.guardian_of(run)?;
        let (tracer, guardian) = (Some(run.pid()), guardian);
        let victims = match self {
            Self::Tracer => [tracer, None],
            Self::Guardian => [guardian, None],
            Self::Both => [guardian, tracer],
            Self::OneAfterTheOther => [tracer, guardian],
        };
        for pid in victims.into_iter().flatten() {
            match kill(pid, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Lab {
    /// The guardian of an `nsntrace`, if it has one at this moment.
    pub fn guardian_of(&self, run: &Running) -> Result<Option<Pid>> {
        let is_guardian = |pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim_end() == GUARDIAN && parent(*pid) == Some(run.pid())
        };
        Ok(self.tracer_cgroup().processes()?.into_iter().find(is_guardian).map(Pid::from_raw))
    }
}

/// None for a process that has just ended.
fn parent(pid: i32) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok().map(Pid::from_raw)
}
