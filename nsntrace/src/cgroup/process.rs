//! The cgroup of a running process, and who else is in it.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use super::{locate, mounts, processes};
use crate::{
    error::{Context, Error, Result},
    proc,
    words::{plain, process},
};

/// How many others are named.
const NAMED: usize = 8;

/// A process and its descendants, which have a cgroup for themselves.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    members: HashSet<u32>,
}

impl Tree {
    /// That of process `pid`.
    ///
    /// # Errors
    /// Where there is no such process; or who else is in its cgroup.
    pub fn of(pid: u32) -> Result<Self> {
        let pid = field(pid, "Tgid:").ok_or_else(|| Error::told(format!("there is no process {pid}")))?;
        let path = folder(pid)?;
        let members: HashSet<_> = processes(&path).into_iter().collect();
        let others: Vec<_> =
            members.iter().filter(|member| !descends_from(**member, |one| one == pid)).collect();
        if others.is_empty() {
            return Ok(Self { path, members });
        }
        let named: Vec<_> = others.iter().take(NAMED).map(|other| name(**other)).collect();
        let more = match others.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let shown = plain(&path.display().to_string());
        Err(Error::told(format!(
            "others are in the cgroup of process {pid} too: {}{more}; trace all of them with --cgroup {}",
            named.join(", "),
            shlex::try_quote(&shown).unwrap_or_default()
        )))
    }

    /// The folder of the cgroup.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who has come into the cgroup since this was asked last, and descends from nobody who was in it then.
    pub fn strangers(&mut self) -> Vec<String> {
        let before = std::mem::replace(&mut self.members, processes(&self.path).into_iter().collect());
        let is_stranger = |pid: &&u32| !descends_from(**pid, |one| before.contains(&one));
        self.members.iter().filter(is_stranger).map(|pid| name(*pid)).collect()
    }
}

/// Whether all that is in the cgroup is in this process's network namespace.
pub fn shares_network(path: &Path) -> bool {
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/net")).ok();
    let own = namespace("self");
    processes(path).iter().filter_map(|pid| namespace(&pid.to_string())).all(|other| Some(other) == own)
}

fn folder(pid: u32) -> Result<PathBuf> {
    let file = format!("/proc/{pid}/cgroup");
    let groups = fs::read_to_string(&file).context("read", file)?;
    let path = locate(&mounts()?, &groups).filter(|path| path.is_dir());
    path.ok_or_else(|| Error::told(format!("no cgroup2 file system shows the cgroup of process {pid}")))
}

/// Whether the process is one of these or below one of them. One that has ended meanwhile is nobody's concern.
fn descends_from(pid: u32, is_one: impl Fn(u32) -> bool) -> bool {
    let mut line = std::iter::successors(Some(pid), |pid| field(*pid, "PPid:"));
    line.any(is_one) || (pid != 0 && field(pid, "Tgid:").is_none())
}

/// A number of a process's status.
fn field(pid: u32, name: &str) -> Option<u32> {
    let status = proc::text(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn name(pid: u32) -> String {
    if pid == 0 { "one of another pid namespace".to_owned() } else { process(pid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descent_is_by_parents() {
        let own = std::process::id();
        let parent = std::os::unix::process::parent_id();
        assert!(descends_from(own, |pid| pid == own));
        assert!(descends_from(own, |pid| pid == parent));
        assert!(!descends_from(parent, |pid| pid == own));
        assert!(!descends_from(0, |pid| pid == own));
        assert_eq!(field(0, "Tgid:"), None);
    }
}
