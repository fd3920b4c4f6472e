//! A network namespace that lives as long as somebody holds it, by a descriptor or as a process inside.
//!
//! Unshare and setns change one thread, so each visit is made by a thread of its own.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Context, Result};

/// A network namespace, held by a descriptor and not pinned anywhere: it goes away with its last holder.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// Makes a new namespace.
    ///
    /// # Errors
    /// Where the kernel refuses it: without CAP_SYS_ADMIN, or over the limit in /proc/sys/user/max_net_namespaces.
    pub fn create() -> Result<Self> {
        in_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net").map(Self)
        })
        .context("create", "a network namespace")
    }

    /// Another holder of the same namespace.
    ///
    /// # Errors
    /// Where the process has no descriptor left.
    pub fn try_clone(&self) -> Result<Self> {
        self.0.try_clone().map(Self).context("hold", "the network namespace")
    }

    /// Does something in the namespace. Sockets that it makes and files of /proc/sys/net that it opens belong there.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, or what `visit` returns.
    pub fn run<T: Send>(&self, visit: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_own_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).context("enter", "the network namespace")?;
            visit()
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn in_own_thread<T: Send, E: Send + From<SpawnFailed>>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    thread::scope(|scope| {
        let thread =
            thread::Builder::new().spawn_scoped(scope, work).map_err(|error| E::from(SpawnFailed(error)))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

struct SpawnFailed(io::Error);

impl From<SpawnFailed> for io::Error {
    fn from(failed: SpawnFailed) -> Self {
        failed.0
    }
}

impl From<SpawnFailed> for crate::error::Error {
    fn from(failed: SpawnFailed) -> Self {
        Self::Failed { action: "start", object: "a thread".into(), source: failed.0.into() }
    }
}
