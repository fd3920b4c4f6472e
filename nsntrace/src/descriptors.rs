//! Descriptors by their numbers: those that the kernel has just made, and those that a process has from the one that it is
//! a copy of.

use std::{
    fs,
    os::fd::{FromRawFd, OwnedFd, RawFd},
};

use nix::errno::Errno;

/// The descriptor that a system call has returned.
///
/// # Errors
/// What the kernel answers, where it has made none.
///
/// # Safety
/// The call is one that makes a descriptor, and nobody else has it.
pub unsafe fn made(result: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the caller's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes all but these, in a process that goes on without whoever owned them.
pub fn close_all_but(kept: &[RawFd]) {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<RawFd> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| !kept.contains(fd)) {
        // SAFETY: whoever owned it was another process.
        unsafe { libc::close(fd) };
    }
}
