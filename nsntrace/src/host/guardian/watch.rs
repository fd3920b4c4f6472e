//! The guardian's life.

use std::{
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl::set_name,
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    },
    unistd::{chdir, close, setsid},
};

use super::{
    NAME,
    word::{self, Word},
};
use crate::{
    capabilities, descriptors,
    error::{Error, Result},
    host::{link, run_dir::RunDir, undo},
    words::say,
};

/// A dead run lets go of its record and of the socket in any order: so long the guardian looks for the record.
const PATIENCE: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Lives until the tracer says farewell, or is gone without.
///
/// # Errors
/// What could not be undone is told already.
pub(super) fn watch(tracer: OwnedFd) -> Result<()> {
    keep_apart(tracer.as_raw_fd());
    capabilities::keep_only(&capabilities::of_guardian()).inspect_err(told)?;
    let tracer = Arc::new(tracer);
    loop {
        match word::hear(&tracer) {
            Ok(Some(Word::Delete { name, tag, held })) => delete(Arc::clone(&tracer), name, tag, held),
            Ok(Some(Word::Farewell)) => {
                // Nobody who reads what a trace says waits for what the kernel is still about.
                let _ = close(libc::STDERR_FILENO);
                return Ok(());
            }
            Ok(None) | Err(_) => return mend().inspect_err(told),
        }
    }
}

/// Deletes the link, while the guardian listens on. What is held goes after it. Where it fails the tracer tries it itself,
/// and says why.
fn delete(tracer: Arc<OwnedFd>, name: String, tag: String, held: Vec<OwnedFd>) {
    let delete = move || {
        let _ = link::delete(&name, &tag);
        let _ = word::done(&tracer);
        drop(held);
    };
    // Where there is no thread, all of it is dropped at once, and the tracer has waited long enough.
    let _ = thread::Builder::new().spawn(delete);
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
fn keep_apart(tracer: RawFd) {
    let _ = setsid();
    let _ = chdir("/");
    let _ = set_name(NAME);
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| *signal != Signal::SIGCHLD) {
        // SAFETY: no handler is installed. It fails for those that cannot be ignored.
        let _ = unsafe { sigaction(signal, &ignore) };
    }
    descriptors::close_all_but(&[libc::STDERR_FILENO, tracer]);
}
