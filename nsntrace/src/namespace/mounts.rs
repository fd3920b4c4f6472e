//! The program's view of the file system, where that tells of the network.

use std::ffi::CStr;

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::covers::Covers;

/// The folder of /sys that lists the devices of the network namespace in which it was mounted.
const DEVICES: &CStr = c"/sys/class/net";

/// Where its links lead.
const VIRTUAL_DEVICES: &CStr = c"/sys/devices/virtual/net";

/// Moves the calling process into a mount namespace of its own, in which the covers are in place and /sys lists the
/// devices of its network namespace. Between fork and exec: it makes system calls only. The rest of /sys stays, with the
/// cgroups below it.
///
/// # Errors
/// Where the kernel refuses the namespace, or the covers where the program needs them. A /sys that cannot be changed stays
/// as it is.
pub fn enter_own(covers: &Covers) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is mounted in the host later appears here too, and nothing of ours there. In a chroot that is no mount point
    // it cannot be had: then nothing is mounted.
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    let mut covered = mount(None::<&str>, "/", None::<&str>, flags, None::<&str>);
    if covered.is_ok() {
        // The list of devices hides what the covers are made of.
        covered = covers.put_up(DEVICES);
        if list_own_devices().is_err() && covered.is_ok() {
            let _ = umount2(DEVICES, MntFlags::MNT_DETACH);
        }
    }
    if covers.has_key_log() { covered } else { Ok(()) }
}

/// A fresh /sys is mounted where its own list then covers it: to unmount it from elsewhere takes the kernel long.
fn list_own_devices() -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let bind =
        |source: &str, target| mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    mount(Some("sysfs"), DEVICES, Some("sysfs"), flags, None::<&str>)?;
    let bound = bind("/sys/class/net/devices/virtual/net", VIRTUAL_DEVICES)
        .and_then(|()| bind("/sys/class/net/class/net", DEVICES));
    if bound.is_err() {
        let _ = umount2(DEVICES, MntFlags::MNT_DETACH);
    }
    bound
}
