//! Descriptors that a process has from the one that it is a copy of.

use std::{fs, os::fd::RawFd};

/// Closes all but these, in a process that goes on without whoever owned them.
pub fn close_all_but(kept: &[RawFd]) {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<RawFd> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| !kept.contains(fd)) {
        // SAFETY: whoever owned it was another process.
        unsafe { libc::close(fd) };
    }
}
