//! A process that does nothing but outlive the tracer: when that is killed, it undoes what was changed.
//!
//! It holds the end of a pipe whose other end the tracer has, and those helpers of it that change the host: when all of
//! them are gone without a word, the record of the run is as good as a dead run's, and swept like one.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    panic::catch_unwind,
    process::Command,
    sync::atomic::{AtomicI32, Ordering},
};

use nix::{
    fcntl::OFlag,
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, pipe2, read, setsid, write},
};

use super::{journal::RunDir, undo};
use crate::{
    error::{Context, Result},
    words::say,
};

/// What the tracer says when there is nothing to undo any more.
const FAREWELL: u8 = b'.';

/// The tracer's end of the pipe, for its helpers. There is one guardian a process.
static LIFELINE: AtomicI32 = AtomicI32::new(-1);

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
                LIFELINE.store(lifeline.as_raw_fd(), Ordering::Relaxed);
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
        LIFELINE.store(-1, Ordering::Relaxed);
        // Where it was killed there is nobody to tell, and nobody to wait for.
        let _ = write(&self.lifeline, &[FAREWELL]);
        let _ = waitpid(self.pid, None);
    }
}

/// Lets the guardian wait for a helper's end too. What the helper is just changing when the tracer is killed comes
/// before what undoes it.
pub fn accompany(helper: &mut Command) {
    use std::os::unix::process::CommandExt;
    let lifeline = LIFELINE.load(Ordering::Relaxed);
    if lifeline >= 0 {
        // SAFETY: one system call on a descriptor that lives as long as the guardian.
        unsafe { helper.pre_exec(move || stay_open(lifeline)) };
    }
}

fn stay_open(fd: RawFd) -> io::Result<()> {
    // SAFETY: it changes a flag of a descriptor.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The guardian's life.
fn watch(watched: &OwnedFd) -> Result<()> {
    keep_apart(watched.as_raw_fd());
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
    let dir = RunDir::open()?;
    let lock = dir.lock(|| None)?;
    undo::sweep(&dir, &lock).inspect_err(|error| say!("nsntrace: the guardian: {error}"))
}

/// No terminal reaches it, and it keeps nothing open that somebody waits for. It may speak.
fn keep_apart(watched: RawFd) {
    let _ = setsid();
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| *signal != Signal::SIGCHLD) {
        // SAFETY: no handler is installed. It fails for those that cannot be ignored.
        let _ = unsafe { sigaction(signal, &ignore) };
    }
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<RawFd> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| ![libc::STDERR_FILENO, watched].contains(fd)) {
        // SAFETY: whoever owned it was the tracer; this process goes on from here without it.
        unsafe { libc::close(fd) };
    }
}
