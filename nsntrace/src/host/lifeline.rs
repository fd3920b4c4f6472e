//! What a helper holds while it adds something to the host, so that its end counts as well as the tracer's.
//!
//! What it is just changing when the tracer is killed comes before what undoes it: the record of the run stays locked,
//! and the guardian waits.

use std::{
    io::{self, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicI32, Ordering},
};

/// The tracer's end of the socket to its guardian.
pub static SOCKET: Held = Held(AtomicI32::new(NONE));

/// The record of the run, with its lock.
pub static RECORD: Held = Held(AtomicI32::new(NONE));

const NONE: RawFd = -1;

/// A descriptor that helpers hold. There is one run a process.
#[derive(Debug)]
pub struct Held(AtomicI32);

impl Held {
    /// Names the descriptor from now on, or none before it is closed.
    pub fn hold(&self, fd: Option<BorrowedFd<'_>>) {
        self.0.store(fd.map_or(NONE, |fd| fd.as_raw_fd()), Ordering::Relaxed);
    }
}

/// Runs a helper to its end, with this on its stdin. It holds what is named meanwhile.
///
/// # Errors
/// Where it cannot be started.
pub fn run(helper: &mut Command, input: &str) -> io::Result<Output> {
    accompany(helper);
    let mut child = helper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where it does not read to the end, its status says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

fn accompany(helper: &mut Command) {
    for fd in [&SOCKET, &RECORD].map(|held| held.0.load(Ordering::Relaxed)) {
        if fd != NONE {
            // SAFETY: one system call, on a descriptor that is open as long as it is named.
            unsafe { helper.pre_exec(move || stay_open(fd)) };
        }
    }
}

fn stay_open(fd: RawFd) -> io::Result<()> {
    // SAFETY: it changes a flag of a descriptor.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
