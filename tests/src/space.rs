//! A pair of namespaces, network and mount, held by descriptors only: they go away with the test.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// One side of the lab, the fake host or the fake internet.
#[derive(Debug)]
pub struct Space {
    /// Its network namespace.
    pub net: OwnedFd,
    /// Its mount namespace, in which /run and /etc are its own.
    pub mnt: OwnedFd,
}

impl Space {
    /// Makes the namespaces. `dir` is an empty folder for what is mounted in them.
    pub fn new(dir: &Path) -> Result<Self> {
        // unshare changes the calling thread alone, and this one ends here.
        thread::scope(|scope| scope.spawn(|| unshared(dir)).join())
            .map_err(|_| anyhow!("the thread panicked"))?
    }

    /// A path to the network namespace that `ip … netns PATH` takes.
    pub fn net_path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.net.as_raw_fd())
    }
}

fn unshared(dir: &Path) -> Result<Space> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("cannot make namespaces")?;
    mount_at("/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    own_sys(dir)?;
    own_run()?;
    own_etc(dir)?;
    plain_sysctls()?;
    let net = File::open("/proc/thread-self/ns/net")?.into();
    let mnt = File::open("/proc/thread-self/ns/mnt")?.into();
    Ok(Space { net, mnt })
}

/// /sys shows the devices of the namespace it was mounted in. A new one over the old would hide /sys/fs/cgroup,
/// so only the two folders that list devices are replaced.
fn own_sys(dir: &Path) -> Result<()> {
    let sys = dir.join("sys");
    fs::create_dir_all(&sys)?;
    mount(Some("sysfs"), &sys, Some("sysfs"), MsFlags::empty(), None::<&str>)
        .context("cannot mount sysfs")?;
    for devices in ["class/net", "devices/virtual/net"] {
        mount_at(&format!("/sys/{devices}"), Some(&sys.join(devices)), MsFlags::MS_BIND)?;
    }
    Ok(())
}

/// Gives the space an empty /run.
fn own_run() -> Result<()> {
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("cannot mount /run")
}

/// Gives the space an /etc in which files can be made and replaced without harm. Links lead to the real files; only
/// resolv.conf is the space's own.
fn own_etc(dir: &Path) -> Result<()> {
    let real = dir.join("etc");
    fs::create_dir_all(&real)?;
    mount(Some("/etc"), &real, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .context("cannot mount /etc elsewhere")?;
    mount(Some("tmpfs"), "/etc", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("cannot mount /etc")?;
    for entry in fs::read_dir(&real)? {
        let name = entry?.file_name();
        if name != "resolv.conf" {
            let path = real.join(&name);
            // A link may be relative to /etc.
            symlink(fs::read_link(&path).unwrap_or(path), Path::new("/etc").join(name))?;
        }
    }
    fs::write("/etc/resolv.conf", "nameserver 203.0.113.7\n").context("cannot write resolv.conf")
}

/// IPv4's sysctls are inherited from the real host: begin with what a kernel begins with.
fn plain_sysctls() -> Result<()> {
    for (name, value) in [("ip_forward", "0"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")] {
        fs::write(Path::new("/proc/sys/net/ipv4").join(name), value)?;
    }
    Ok(())
}

fn mount_at(target: &str, source: Option<&Path>, flags: MsFlags) -> Result<()> {
    mount(source, target, None::<&str>, flags, None::<&str>).with_context(|| format!("cannot mount {target}"))
}
