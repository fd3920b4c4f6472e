//! The program's view of the file system, where that tells of the network.

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

/// A folder of our own, hidden from the program by what is mounted on it for a while.
const PLACE: &str = "/run/nsntrace";

/// Folders of /sys that list the devices of the network namespace in which it was mounted.
const DEVICE_LISTS: [(&str, &str); 2] = [
    ("/run/nsntrace/class/net", "/sys/class/net"),
    ("/run/nsntrace/devices/virtual/net", "/sys/devices/virtual/net"),
];

/// Moves the calling process into a mount namespace of its own, in which /sys lists the devices of its network
/// namespace. Between fork and exec: it makes system calls only. The rest of /sys stays, with the cgroups below it.
///
/// # Errors
/// Where the kernel refuses the namespace. A /sys that cannot be changed stays as it is.
pub fn enter_own() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is mounted in the host later appears here too, and nothing of ours there. In a chroot that is no mount point
    // it cannot be had: then nothing is mounted.
    if mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>).is_ok() {
        let _ = list_own_devices();
    }
    Ok(())
}

fn list_own_devices() -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("sysfs"), PLACE, Some("sysfs"), flags, None::<&str>)?;
    for (own, shown) in DEVICE_LISTS {
        let _ = mount(Some(own), shown, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    }
    umount2(PLACE, MntFlags::MNT_DETACH)
}
