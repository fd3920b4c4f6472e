//! A network namespace that lives as long as somebody holds it, by a descriptor or as a process inside.
//!
//! Unshare and setns change one thread, so each visit is made by a thread of its own.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::Pid,
};

use crate::{
    error::{Context, Result},
    own_thread,
};

/// A network namespace, held by a descriptor and not pinned anywhere: it goes away with its last holder.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// Makes a new namespace.
    ///
    /// # Errors
    /// Where the kernel refuses it: without CAP_SYS_ADMIN, or over the limit in /proc/sys/user/max_net_namespaces.
    pub fn create() -> Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net").map(Self)
        };
        own_thread::run(make).flatten().context("create", "a network namespace")
    }

    /// Another holder of the same namespace.
    ///
    /// # Errors
    /// Where the process has no descriptor left.
    pub fn try_clone(&self) -> Result<Self> {
        self.0.try_clone().map(Self).context("hold", "the network namespace")
    }

    /// Whether a process is in it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the process has ended, or is about to.
    ///
    /// [`ErrorKind::NotFound`]: io::ErrorKind::NotFound
    pub fn is_of(&self, pid: Pid) -> io::Result<bool> {
        let (own, other) = (self.0.metadata()?, fs::metadata(format!("/proc/{pid}/ns/net"))?);
        Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
    }

    /// Does something in the namespace. Sockets that it makes and files of /proc/sys/net that it opens belong there.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, or what `visit` returns.
    pub fn run<T: Send>(&self, visit: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let visit = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).context("enter", "the network namespace")?;
            visit()
        };
        own_thread::run(visit).context("start", "a thread")?
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
