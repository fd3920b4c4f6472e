//! Threads for what changes one thread only, must not happen in the caller's, or takes long.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    panic::resume_unwind,
    sync::Arc,
    thread::{self, JoinHandle},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Does `work` in a thread that ends after it, and waits for it. The thread begins in its parent's namespaces and with
/// its rights. A panic goes on in the caller.
///
/// # Errors
/// Where no thread can be had.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Work that goes on meanwhile. Its descriptor can be read when it is done.
pub struct Ongoing<T> {
    thread: JoinHandle<T>,
    is_done: Arc<EventFd>,
}

/// Tells that a thread is done, however it ends.
struct Tell(Arc<EventFd>);

impl Drop for Tell {
    fn drop(&mut self) {
        // It fails only when the counter is about to overflow.
        let _ = self.0.write(1);
    }
}

impl<T: Send + 'static> Ongoing<T> {
    /// Starts a thread for it.
    ///
    /// # Errors
    /// Where none can be had.
    pub fn start(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let is_done = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        let tell = Tell(Arc::clone(&is_done));
        let work = move || {
            let _tell = tell;
            work()
        };
        Ok(Self { thread: thread::Builder::new().spawn(work)?, is_done })
    }

    /// What came of it, when it is done. A panic goes on in the caller.
    pub fn wait(self) -> T {
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl<T> AsFd for Ongoing<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.is_done.as_fd()
    }
}
