//! A process that does nothing but outlive the tracer: when that is killed, it undoes what was changed.
//!
//! It holds the end of a pipe whose other end the tracer has, and those helpers of it that add to the host: when all of
//! them are gone without a word, the record of the run is a dead run's, and swept like one.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    panic::catch_unwind,
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::OFlag,
    sys::{
        prctl::set_name,
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, pipe2, read, setsid, write},
};

use super::{lifeline, run_dir::RunDir, undo};
use crate::{
    capabilities, descriptors,
    error::{Context, Error, Result},
    words::say,
};

/// What the tracer says when there is nothing to undo any more.
const FAREWELL: u8 = b'.';

/// A dead run lets go of its record and of the pipe in any order: so long the guardian looks for the record.
const PATIENCE: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What it is called, so that who kills the tracer by its name does not hit the guardian too.
const NAME: &CStr = c"netns-guardian";

/// A guardian that watches this process. Dropped, it goes away.
#[derive(Debug)]
pub struct Guardian {
    pid: Pid,
    lifeline: OwnedFd,
}

impl Guardian {
    /// Starts it. While the process has one thread, and nothing open that others wait for.
    ///
    /// # Errors
    /// Where there can be no more processes.
    pub fn start() -> Result<Self> {
        let (watched, lifeline) = pipe2(OFlag::O_CLOEXEC).context("make", "a pipe")?;
        // SAFETY: there is no other thread that could hold a lock in the child.
        match unsafe { fork() }.context("start", "the guardian")? {
            ForkResult::Parent { child } => {
                lifeline::PIPE.hold(Some(lifeline.as_fd()));
                Ok(Self { pid: child, lifeline })
            }
            ForkResult::Child => {
                drop(lifeline);
                // Nothing of it may get back into the tracer's story, a panic neither.
                let result = catch_unwind(|| watch(&watched).is_ok());
                let status = i32::from(!result.unwrap_or(false));
                // SAFETY: it ends the process, and runs nothing of the tracer's on the way.
                unsafe { libc::_exit(status) }
            }
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        lifeline::PIPE.hold(None);
        // Where it was killed there is nobody to tell, and nobody to wait for.
        let _ = write(&self.lifeline, &[FAREWELL]);
        if waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) {
            // Somebody may have stopped it, and no shell continues it.
            let _ = kill(self.pid, Signal::SIGCONT);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// The guardian's life.
fn watch(watched: &OwnedFd) -> Result<()> {
    keep_apart(watched.as_raw_fd());
    capabilities::keep_only(&capabilities::of_guardian()).inspect_err(told)?;
    let mut byte = [0];
    let is_farewell = loop {
        match read(watched, &mut byte) {
            Err(nix::Error::EINTR) => {}
            result => break result == Ok(1),
        }
    };
    if is_farewell {
        return Ok(());
    }
    mend().inspect_err(told)
}

fn told(error: &Error) {
    say!("nsntrace: the guardian: {error}");
}

/// Sweeps until nothing is left of the run, nor of a run inside that has ended with it.
fn mend() -> Result<()> {
    let dir = RunDir::open()?;
    let started = Instant::now();
    let mut mended = false;
    loop {
        let lock = dir.lock(|| None)?;
        let swept = undo::sweep(&dir, &lock)?;
        drop(lock);
        if swept.failed > 0 || (swept.undone == 0 && (mended || started.elapsed() > PATIENCE)) {
            return Ok(());
        }
        if swept.undone == 0 {
            thread::sleep(LOOK_EVERY);
        }
        mended |= swept.undone > 0;
    }
}

/// No terminal reaches it, and it keeps nothing open that somebody waits for. It may speak.
fn keep_apart(watched: RawFd) {
    let _ = setsid();
    let _ = set_name(NAME);
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| *signal != Signal::SIGCHLD) {
        // SAFETY: no handler is installed. It fails for those that cannot be ignored.
        let _ = unsafe { sigaction(signal, &ignore) };
    }
    descriptors::close_all_but(&[libc::STDERR_FILENO, watched]);
}
