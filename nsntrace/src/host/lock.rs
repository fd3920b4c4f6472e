//! The lock on what runs share.

use std::{
    fs::File,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::Signal,
};

use crate::{
    error::{Context, Error, Result},
    words::say,
};

/// How often the lock is tried; it is held for some milliseconds.
const LOCK_EVERY: Duration = Duration::from_millis(5);

/// How long it is waited for without a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// Held, it keeps other runs from deciding anything about what runs share.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits until no other run holds it, or until `give_up` names a signal that asks for the end.
    pub(super) fn take(mut file: File, path: &Path, give_up: impl Fn() -> Option<Signal>) -> Result<Self> {
        let started = Instant::now();
        let mut told = false;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => return Ok(Self { _file: file }),
                Err((file, nix::Error::EWOULDBLOCK)) => file,
                Err((_, error)) => return Err(error).context("lock", path.display()),
            };
            if let Some(signal) = give_up() {
                return Err(Error::Interrupted(signal as i32));
            }
            if !told && started.elapsed() > PATIENCE {
                told = true;
                say!("nsntrace: waiting for another run, which holds {}", path.display());
            }
            thread::sleep(LOCK_EVERY);
        }
    }
}
