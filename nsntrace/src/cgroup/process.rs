//! The cgroup of a running process, and who else is in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{below, locate, mounts};
use crate::{
    error::{Context, Error, Result},
    words::plain,
};

/// How many others are named.
const NAMED: usize = 8;

/// The folder of the cgroup of process `pid`, if that holds the process and its descendants and nobody else.
///
/// # Errors
/// Where there is no such process; or who else is in there.
pub fn of_process(pid: u32) -> Result<PathBuf> {
    let pid = field(pid, "Tgid:").ok_or_else(|| Error::told(format!("there is no process {pid}")))?;
    let path = folder(pid)?;
    let others: Vec<_> = members(&path).into_iter().filter(|member| !descends_from(*member, pid)).collect();
    if others.is_empty() {
        return Ok(path);
    }
    let named: Vec<_> = others.iter().take(NAMED).map(|other| name(*other)).collect();
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

/// Whether all that is in the cgroup is in this process's network namespace.
pub fn shares_network(path: &Path) -> bool {
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/net")).ok();
    let own = namespace("self");
    members(path).iter().filter_map(|pid| namespace(&pid.to_string())).all(|other| Some(other) == own)
}

fn folder(pid: u32) -> Result<PathBuf> {
    let file = format!("/proc/{pid}/cgroup");
    let groups = fs::read_to_string(&file).context("read", file)?;
    let path = locate(&mounts()?, &groups).filter(|path| path.is_dir());
    path.ok_or_else(|| Error::told(format!("no cgroup2 file system shows the cgroup of process {pid}")))
}

/// Who is in the cgroup and below it. A process that this one's pid namespace does not show is 0.
fn members(path: &Path) -> Vec<u32> {
    let procs = |path: PathBuf| fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let texts: Vec<_> = below(path).into_iter().map(procs).collect();
    texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.parse().ok()).collect()
}

/// A process that has ended meanwhile is nobody's concern.
fn descends_from(pid: u32, ancestor: u32) -> bool {
    let parent = |pid: &u32| if *pid == ancestor { None } else { field(*pid, "PPid:") };
    let last = std::iter::successors(Some(pid), parent).last();
    last == Some(ancestor) || (pid != 0 && field(pid, "Tgid:").is_none())
}

/// A number of a process's status.
fn field(pid: u32, name: &str) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match pid {
        0 => "one of another pid namespace".to_owned(),
        _ => format!("{} ({pid})", plain(name.trim_end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descent_is_by_parents() {
        let own = std::process::id();
        let parent = std::os::unix::process::parent_id();
        assert!(descends_from(own, own));
        assert!(descends_from(own, parent));
        assert!(!descends_from(parent, own));
        assert!(!descends_from(0, own));
        assert_eq!(field(0, "Tgid:"), None);
    }
}
