//! A cgroup for what runs in the lab: it tells who is left, and ends them all.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::until;

/// A cgroup (v2) that the lab made. Dropping it kills what is in it and removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup `name` below the one this process is in.
    pub fn below_own(name: &str) -> Result<Self> {
        Self::create(own_cgroup()?.join(name))
    }

    /// Makes the cgroup `name` in this one, which removes it when it is dropped itself.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::create(self.path.join(name))
    }

    fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its `cgroup.procs`; a process that writes 0 into it moves in.
    pub fn procs(&self) -> Result<File> {
        let path = self.path.join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).with_context(|| format!("cannot open {}", path.display()))
    }

    /// Whether any process lives in it or below it. A zombie does not.
    pub fn is_populated(&self) -> Result<bool> {
        let events = fs::read_to_string(self.path.join("cgroup.events"))?;
        Ok(events.lines().any(|line| line == "populated 1"))
    }

    /// The processes in it and below it.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for folder in self.folders()? {
            // A folder may go away while it is read: then nobody is in it.
            let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(procs.lines().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        Ok(pids)
    }

    /// Its own folder and all below it, parents first.
    pub fn folders(&self) -> Result<Vec<PathBuf>> {
        let mut found = vec![self.path.clone()];
        let mut next = 0;
        while let Some(folder) = found.get(next).cloned() {
            next += 1;
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    found.push(entry.path());
                }
            }
        }
        Ok(found)
    }

    /// Kills all of it and waits until the last process is gone.
    pub fn kill(&self) -> Result<()> {
        if fs::write(self.path.join("cgroup.kill"), "1").is_err() {
            self.kill_each()?;
        }
        until("the end of the lab's processes", Duration::from_secs(10), || {
            Ok((!self.is_populated()?).then_some(()))
        })
    }

    /// As it is done before Linux 5.14: nobody forks while it is frozen.
    fn kill_each(&self) -> Result<()> {
        fs::write(self.path.join("cgroup.freeze"), "1")?;
        for pid in self.processes()? {
            // It fails for one that has just ended.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        fs::write(self.path.join("cgroup.freeze"), "0").map_err(Into::into)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.path.exists() {
            return;
        }
        if let Err(error) = self.kill() {
            eprintln!("{}: {error:#}", self.path.display());
        }
        for folder in self.folders().unwrap_or_default().iter().rev() {
            if let Err(error) = fs::remove_dir(folder) {
                eprintln!("cannot remove the cgroup {}: {error}", folder.display());
            }
        }
    }
}

/// The folder of this process's own cgroup, wherever cgroup2 is mounted.
pub fn own_cgroup() -> Result<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own =
        own.lines().find_map(|line| line.strip_prefix("0::")).context("not in any cgroup of version 2")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for mount in mounts.lines().filter(|line| line.contains(" - cgroup2 ")) {
        let mut fields = mount.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        if let Ok(below) = Path::new(own).strip_prefix(root) {
            return Ok(Path::new(point).join(below));
        }
    }
    bail!("no mount of cgroup2 shows the cgroup {own}")
}

/// Removes the empty cgroups that killed test runs left behind, told by the process id in their names.
pub fn sweep(prefix: &str) -> Result<()> {
    for entry in fs::read_dir(own_cgroup()?)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            drop(Cgroup { path: entry.path() });
        }
    }
    Ok(())
}
