//! Mounts as descriptors, see open_tree(2) and its kin: the mount calls of Linux 5.2, which neither follow a link at the
//! target nor need a path for the source.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr::null,
};

use nix::errno::Errno;

use crate::descriptors::made;

/// `FSCONFIG_CMD_CREATE` of linux/mount.h.
const CREATE: libc::c_uint = 6;
/// `FSMOUNT_CLOEXEC`, and `FSOPEN_CLOEXEC`.
const CLOSE_ON_EXEC: libc::c_uint = 1;
/// `MOUNT_ATTR_NOSUID`, `MOUNT_ATTR_NODEV` and `MOUNT_ATTR_NOEXEC`.
const PLAIN: libc::c_uint = 2 | 4 | 8;

/// A file system of that kind that is mounted nowhere. With its last descriptor the mount goes away.
///
/// # Errors
/// What the kernel answers.
pub fn file_system(kind: &CStr) -> nix::Result<OwnedFd> {
    // SAFETY: the name ends with a zero byte, and the call makes a descriptor.
    let context = unsafe { made(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOSE_ON_EXEC)) }?;
    // SAFETY: this command takes neither key nor value.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, null::<u8>(), null::<u8>(), 0)
    })?;
    // SAFETY: numbers only, and the call makes a descriptor.
    unsafe { made(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOSE_ON_EXEC, PLAIN)) }
}

/// Mounts what `mount` is, which is mounted nowhere yet, at `path` below `folder`: over a link there and not at its end.
/// The descriptor keeps standing for the mount.
///
/// # Errors
/// What the kernel answers.
pub fn attach(mount: BorrowedFd<'_>, folder: BorrowedFd<'_>, path: &CStr) -> nix::Result<()> {
    // SAFETY: both paths end with a zero byte.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            folder.as_raw_fd(),
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

/// Mounts the file `source` below `mount` at `path` below `folder` too. The mount must be one of the calling thread's
/// mount namespace.
///
/// # Errors
/// What the kernel answers.
pub fn bind(mount: BorrowedFd<'_>, source: &CStr, folder: BorrowedFd<'_>, path: &CStr) -> nix::Result<()> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path ends with a zero byte.
    let tree =
        unsafe { made(libc::syscall(libc::SYS_open_tree, mount.as_raw_fd(), source.as_ptr(), flags)) }?;
    attach(tree.as_fd(), folder, path)
}
