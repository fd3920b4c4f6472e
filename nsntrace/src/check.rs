//! What a trace needs of this host, looked at before anything is changed.

use std::{os::fd::OwnedFd, path::PathBuf};

use aya::util::KernelVersion;
use nix::unistd::geteuid;
use nsntrace_ebpf::linktype;

use crate::{
    cgroup,
    config::{Config, Running},
    error::{Error, Result},
    filter::{self, Compiled},
    host::{
        nat::{self, Family},
        reserve::reserve,
        route::{self, Device},
    },
    tracee,
    user::{self, Account},
    words::Voice,
};

/// The first kernel with all that is used: the BPF ring buffer and the boot clock for BPF programs.
const OLDEST_KERNEL: (u8, u8) = (5, 8);

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
    pub cgroup: PathBuf,
    /// What keeps the published ports for the program.
    pub ports: Vec<OwnedFd>,
}

/// Checks all that a trace of this configuration needs.
///
/// # Errors
/// What is missing, and how to mend it.
pub fn host(config: &Config) -> Result<Host> {
    any_trace()?;
    let account = config.user.as_deref().map(user::look_up).transpose()?;
    let device = config.device.as_deref().map(device).transpose()?;
    tracee::find(&config.program)?;
    let cgroup = cgroup::own()?;
    nat::check(Family::V4)?;
    let ports = reserve(&config.published)?;
    // The last, for it may take long.
    let filter = filter(config, linktype::EN10MB)?;
    Ok(Host { device, filter, account, cgroup, ports })
}

/// The same for a trace of what already runs: its cgroup, and the program of `-f`.
///
/// # Errors
/// As [`host`].
pub fn running(config: &Config, running: &Running) -> Result<(PathBuf, Option<Compiled>)> {
    any_trace()?;
    let cgroup = match running {
        Running::Cgroup(name) => cgroup::find(name)?,
        Running::Process(pid) => cgroup::of_process(*pid)?,
    };
    Ok((cgroup, filter(config, linktype::RAW)?))
}

fn any_trace() -> Result<()> {
    if !geteuid().is_root() {
        return Err(Error::told("a trace needs root: run it as 'sudo nsntrace …'"));
    }
    kernel(KernelVersion::current().ok())
}

fn filter(config: &Config, linktype: u16) -> Result<Option<Compiled>> {
    let filter = config.filter.as_deref();
    let filter = filter.map(|expression| filter::compile(expression, linktype)).transpose()?;
    if filter.as_ref().is_some_and(|filter| !filter.is_optimised) {
        Voice::new(config.words).not_optimised();
    }
    Ok(filter)
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

fn device(name: &str) -> Result<Device> {
    route::device(name).map_err(|error| match error.errno() {
        Some(libc::ENODEV | libc::EINVAL | libc::ERANGE) => Error::told(format!("Unknown interface: {name}")),
        _ => error,
    })
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
}
