//! Who belongs to a program.

use std::io::ErrorKind;

use nix::{
    sys::signal::Signal,
    unistd::{Pid, getpid},
};

use crate::{
    error::Result,
    host::cgroup_leaf::{Events, Leaf, Work},
    namespace::netns::Netns,
    signals::send,
};

/// A program's tree: those in its cgroup, and those who have gone to another cgroup and are in its network namespace
/// still, when their parents have ended and left them to us.
#[derive(Debug)]
pub struct Tree {
    leaf: Leaf,
    netns: Netns,
    work: Option<Work>,
    /// What it was when it was asked before who has run.
    done: Option<u64>,
}

impl Tree {
    /// The tree in this cgroup and this namespace.
    pub fn new(leaf: Leaf, netns: Netns) -> Self {
        let work = leaf.work().ok();
        Self { leaf, netns, work, done: None }
    }

    /// What tells of the last one's end in the cgroup.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn events(&self) -> Result<Events> {
        self.leaf.events()
    }

    /// Those in it.
    pub fn processes(&self) -> Vec<Pid> {
        let mut pids = self.leaf.processes();
        pids.extend(self.adopted());
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Those of them who are our children: the program itself, and whose parents have ended. One who is just ending is
    /// in no namespace any more, and its children are not ours yet.
    pub fn adopted(&self) -> Vec<Pid> {
        let is_in_it = |pid: &Pid| match self.netns.is_of(*pid) {
            Ok(is_in_it) => is_in_it,
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        children().filter(is_in_it).collect()
    }

    /// Whether somebody in the cgroup has run since this was asked before.
    pub fn has_run(&mut self) -> bool {
        let before = std::mem::replace(&mut self.done, self.work.as_ref().and_then(Work::done));
        self.done.is_none() || self.done != before
    }

    /// One who is in the cgroup and in another network namespace.
    pub fn absent(&self) -> Option<Pid> {
        self.leaf.processes().into_iter().find(|pid| matches!(self.netns.is_of(*pid), Ok(false)))
    }

    /// Sends a signal to each of them.
    pub fn signal(&self, signal: Signal) {
        self.processes().into_iter().for_each(|pid| send(pid, signal));
    }

    /// Ends them at once. Who becomes our child by that has to be ended when it has.
    pub fn kill(&self) {
        self.leaf.kill();
        self.adopted().into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
    }
}

/// The children of this process. It has threads, and each has its own.
fn children() -> impl Iterator<Item = Pid> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", getpid())).into_iter().flatten().flatten();
    threads.flat_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).collect::<Vec<_>>()
    })
}
