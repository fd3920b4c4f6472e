//! What a trace needs of this host, looked at before anything is changed.

mod key_log;
pub mod report;

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::PathBuf,
};

use aya::util::KernelVersion;
use nix::unistd::{AccessFlags, eaccess, geteuid};
use nsntrace_ebpf::linktype;

use crate::{
    cgroup::{self, Own, Tree},
    config::{Config, Running},
    error::{Context, Error, Result},
    filter::{self, Compiled},
    host::{
        device::{self, Device},
        nat::Family,
        packet_filter,
        reserve::reserve,
    },
    tracee,
    user::{self, Account},
    words::Voice,
};

/// The first kernel with all that is used: the BPF ring buffer and the boot clock for BPF programs.
const OLDEST_KERNEL: (u8, u8) = (5, 8);

/// A setting like those that a trace writes.
const SETTING: &str = "/proc/sys/net/ipv4/conf/default/forwarding";

/// What root may lack in a container, by its number.
const CAPABILITIES: [(&str, u32); 3] =
    [("CAP_DAC_OVERRIDE", 1), ("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

/// Before Linux 5.11 BPF takes locked memory, and more than a process usually may have.
const CAPABILITY_OF_MEMORY: [(&str, u32); 1] = [("CAP_SYS_RESOURCE", 24)];
const NO_LOCKED_MEMORY: (u8, u8) = (5, 11);

/// And what else is needed with `-u`.
const CAPABILITIES_OF_USERS: [(&str, u32); 2] = [("CAP_SETGID", 6), ("CAP_SETUID", 7)];

/// Where the kernel tells in which user namespace we are, and what it calls the first, which has all rights: the number is
/// `PROC_USER_INIT_INO` of linux/proc_ns.h.
const USER_NAMESPACE: &str = "/proc/self/ns/user";
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// What was found.
#[derive(Debug)]
pub struct Host {
    /// The device of `-d`.
    pub device: Option<Device>,
    /// The program of `-f`.
    pub filter: Option<Compiled>,
    /// The user of `-u`.
    pub account: Option<Account>,
    /// The cgroup that we are in.
    pub cgroup: Own,
    /// What keeps the published ports for the program.
    pub ports: Vec<OwnedFd>,
    /// With `--tls-keys`, the file in which the program would have logged its keys anyway.
    pub key_log: Option<File>,
}

/// What was found for a trace of what already runs.
#[derive(Debug)]
pub struct Present {
    /// The cgroup's folder.
    pub cgroup: PathBuf,
    /// Who is in there, where a process was named.
    pub tree: Option<Tree>,
    /// The program of `-f`.
    pub filter: Option<Compiled>,
}

/// Checks all that a trace of this configuration needs. [`report::print`] goes on where this stops.
///
/// # Errors
/// What is missing, and how to mend it.
pub fn host(config: &Config) -> Result<Host> {
    any_trace(config)?;
    let account = account(config)?;
    let device = device(config)?;
    tracee::find(&config.program, account.as_ref())?;
    let cgroup = cgroup()?;
    settings()?;
    packet_filter::find(Family::V4)?;
    let ports = reserve(&config.published)?;
    let key_log = if config.tls_keys { key_log::open(account.as_ref())? } else { None };
    // The last, for it may take long.
    let filter = filter(config, linktype::EN10MB)?;
    say_if_not_optimised(config, filter.as_ref());
    Ok(Host { device, filter, account, cgroup, ports, key_log })
}

/// The same for a trace of what already runs.
///
/// # Errors
/// As [`host`].
pub fn running(config: &Config, running: &Running) -> Result<Present> {
    any_trace(config)?;
    let (cgroup, tree) = find(running)?;
    let filter = filter(config, linktype::RAW)?;
    say_if_not_optimised(config, filter.as_ref());
    Ok(Present { cgroup, tree, filter })
}

fn find(running: &Running) -> Result<(PathBuf, Option<Tree>)> {
    match running {
        Running::Cgroup(name) => Ok((cgroup::find(name)?, None)),
        Running::Process(pid) => {
            let tree = Tree::of(*pid)?;
            Ok((tree.path().to_owned(), Some(tree)))
        }
    }
}

fn say_if_not_optimised(config: &Config, filter: Option<&Compiled>) {
    if filter.is_some_and(|filter| !filter.is_optimised) {
        Voice::new(config.words).not_optimised();
    }
}

fn any_trace(config: &Config) -> Result<()> {
    root()?;
    // Before what an old one needs besides.
    kernel(KernelVersion::current().ok())?;
    capabilities(config.user.is_some())
}

fn root() -> Result<()> {
    if !geteuid().is_root() {
        return Err(Error::told("a trace needs root: run it as 'sudo nsntrace …'"));
    }
    // Where it cannot be read, what is missing is told later.
    if fs::read_link(USER_NAMESPACE).is_ok_and(|found| found.as_os_str() != FIRST_USER_NAMESPACE) {
        return Err(Error::told(
            "root of a user namespace, as in a rootless container, may not load BPF programs: run nsntrace outside of it",
        ));
    }
    Ok(())
}

/// With `-u` some more are needed.
fn capabilities(with_user: bool) -> Result<()> {
    let status =
        fs::read_to_string("/proc/thread-self/status").context("read", "/proc/thread-self/status")?;
    let (major, minor) = NO_LOCKED_MEMORY;
    let is_old = KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(major, minor, 0));
    let for_memory = if is_old { &CAPABILITY_OF_MEMORY[..] } else { &[] };
    let for_user = if with_user { &CAPABILITIES_OF_USERS[..] } else { &[] };
    match lacking(&status, &[&CAPABILITIES, for_memory, for_user].concat())[..] {
        [] => Ok(()),
        ref names => Err(Error::told(format!(
            "root is without {} here: give the container what it lacks, or run nsntrace outside of it",
            names.join(" and ")
        ))),
    }
}

/// Which of the capabilities are not in force. See proc_pid_status(5).
fn lacking(status: &str, needed: &[(&'static str, u32)]) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    needed.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect()
}

/// A kernel that does not tell its version may well do.
fn kernel(version: Option<KernelVersion>) -> Result<()> {
    let (major, minor) = OLDEST_KERNEL;
    match version {
        Some(version) if version < KernelVersion::new(major, minor, 0) => Err(Error::told(format!(
            "this kernel is too old: Linux {major}.{minor} or newer is needed, for the BPF ring buffer"
        ))),
        _ => Ok(()),
    }
}

fn account(config: &Config) -> Result<Option<Account>> {
    config.user.as_deref().map(user::look_up).transpose()
}

fn device(config: &Config) -> Result<Option<Device>> {
    let Some(name) = &config.device else { return Ok(None) };
    let found = device::find(name).map_err(|error| match error.errno() {
        Some(libc::ENODEV | libc::EINVAL | libc::ERANGE) => Error::told(format!("Unknown interface: {name}")),
        _ => error,
    });
    found.map(Some)
}

/// The cgroup that we are in, in which there can be another.
fn cgroup() -> Result<Own> {
    let own = cgroup::own()?;
    eaccess(&own.path, AccessFlags::W_OK).context("make a cgroup in", own.path.display())?;
    Ok(own)
}

fn settings() -> Result<()> {
    match eaccess(SETTING, AccessFlags::W_OK) {
        Err(nix::Error::EROFS) => Err(Error::told(
            "/proc/sys is read-only here, and a trace writes settings there: run the container privileged, or nsntrace \
             outside of it",
        )),
        result => result.context("write to", SETTING),
    }
}

fn filter(config: &Config, linktype: u16) -> Result<Option<Compiled>> {
    let filter = config.filter.as_deref();
    filter.map(|expression| filter::compile(expression, linktype)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_told() {
        let error = kernel(Some(KernelVersion::new(5, 7, 19))).expect_err("too old");
        assert_eq!(
            error.to_string(),
            "this kernel is too old: Linux 5.8 or newer is needed, for the BPF ring buffer"
        );
        assert!(kernel(Some(KernelVersion::new(5, 8, 0))).is_ok());
        assert!(kernel(None).is_ok());
    }

    #[test]
    fn capabilities_that_root_lacks_are_told() {
        let of = |status| lacking(status, &CAPABILITIES);
        assert_eq!(of("Name:\tx\nCapEff:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(of("CapEff:\t00000000a80425fb\n"), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert_eq!(
            of("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000001000\n"),
            ["CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]
        );
    }
}
