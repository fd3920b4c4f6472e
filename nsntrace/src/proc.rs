//! What /proc tells.

use std::{fs, io, path::Path};

/// The host's own namespace of processes.
const HOST_PIDS: &str = "pid:[4026531836]";

/// A file of it as text. Names in there are whatever somebody chose: what is no UTF-8 in them is replaced.
///
/// # Errors
/// Where it cannot be read.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What is mounted where, for this process.
///
/// # Errors
/// Where it cannot be read.
pub fn mounts() -> io::Result<String> {
    text("/proc/self/mountinfo")
}

/// Whether this process is in the host's own namespace of processes: they have the same numbers here as in the kernel, and
/// the first of them looks after orphans.
pub fn shows_the_hosts_processes() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name == Path::new(HOST_PIDS))
}
