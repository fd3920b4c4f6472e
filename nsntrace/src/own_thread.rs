//! A thread for what changes one thread only, or must not happen in the caller's.

use std::{io, panic::resume_unwind, thread};

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
