//! A process that does nothing but outlive the tracer: when that is killed, it undoes what was changed.
//!
//! It holds the end of a socket whose other end the tracer has, and those helpers of it that add to the host: when all of
//! them are gone without a word, the record of the run is a dead run's, and swept like one.

mod watch;
mod word;

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic::catch_unwind,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};

use super::{departure::Departure, lifeline, link};
use crate::{
    error::{Context, Result},
    proc,
};

/// What it is called, so that who kills the tracer by its name does not hit the guardian too.
const NAME: &CStr = c"netns-guardian";

/// A guardian that watches this process. Dropped, it goes away, at once or when it has done what it is about.
#[derive(Debug)]
pub struct Guardian {
    pid: Pid,
    socket: OwnedFd,
    /// Whether it is about something that nobody waits for.
    is_busy: AtomicBool,
}

impl Guardian {
    /// Starts it. While the process has one thread, and nothing open that others wait for.
    ///
    /// # Errors
    /// Where there can be no more processes.
    pub fn start() -> Result<Self> {
        let (tracer, guardian) = word::way()?;
        // SAFETY: there is no other thread that could hold a lock in the child.
        match unsafe { fork() }.context("start", "the guardian")? {
            ForkResult::Parent { child } => {
                lifeline::SOCKET.hold(Some(tracer.as_fd()));
                Ok(Self { pid: child, socket: tracer, is_busy: AtomicBool::new(false) })
            }
            ForkResult::Child => {
                drop(tracer);
                // Nothing of it may get back into the tracer's story, a panic neither.
                let result = catch_unwind(|| watch::watch(guardian).is_ok());
                let status = i32::from(!result.unwrap_or(false));
                // SAFETY: it ends the process, and runs nothing of the tracer's on the way.
                unsafe { libc::_exit(status) }
            }
        }
    }

    /// Deletes a link of that alias, and returns when it is gone, with its addresses, routes and settings. Whoever asks the
    /// kernel for that waits as long again, for all that may still be looking at the link: the guardian does, and nobody waits
    /// for the guardian. It holds these meanwhile, since whoever closes them waits too.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn delete_link(&self, name: &str, tag: &str, held: &[BorrowedFd<'_>]) -> Result<()> {
        // The first process of a container may never look after a guardian that the tracer has left. (Nor may one that has
        // asked for orphans: that cannot be known.) A link that is not seen to go may be there.
        if proc::shows_the_hosts_processes() && self.sees_off(name, tag, held).unwrap_or(false) {
            return Ok(());
        }
        link::delete(name, tag)
    }

    /// Has the guardian delete the link. Whether it was seen to go.
    fn sees_off(&self, name: &str, tag: &str, held: &[BorrowedFd<'_>]) -> Result<bool> {
        let departure = Departure::watch(name)?;
        word::delete(&self.socket, name, tag, held)?;
        self.is_busy.store(true, Ordering::Relaxed);
        self.wake();
        departure.wait(self.socket.as_fd())
    }

    /// Somebody may have stopped it, and no shell continues it.
    fn wake(&self) {
        let _ = kill(self.pid, Signal::SIGCONT);
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        lifeline::SOCKET.hold(None);
        // Where it was killed there is nobody to tell, and nobody to wait for.
        let _ = word::farewell(&self.socket);
        let is_there = waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive);
        if is_there {
            self.wake();
            if !self.is_busy.load(Ordering::Relaxed) {
                let _ = waitpid(self.pid, None);
            }
        }
    }
}
