//! What a trace needs of this host, looked at before anything is changed.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
};

use aya::util::KernelVersion;
use nix::unistd::geteuid;
use nsntrace_ebpf::linktype;

use crate::{
    cgroup,
    config::Config,
    error::{Context, Error, Result},
    filter::{self, Compiled},
    host::{
        nat::{self, Family},
        reserve::reserve,
        route::{self, Device},
    },
    output::trace_file::Invoker,
    tls_keys, tracee,
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
    /// With `--tls-keys`, the file in which the program would have logged its keys anyway.
    pub key_log: Option<File>,
}

/// Checks all that a trace of this configuration needs.
///
/// # Errors
/// What is missing, and how to mend it.
pub fn host(config: &Config) -> Result<Host> {
    if !geteuid().is_root() {
        return Err(Error::told("a trace needs root: run it as 'sudo nsntrace …'"));
    }
    kernel(KernelVersion::current().ok())?;
    let account = config.user.as_deref().map(user::look_up).transpose()?;
    let device = config.device.as_deref().map(device).transpose()?;
    tracee::find(&config.program)?;
    let cgroup = cgroup::own()?;
    nat::check(Family::V4)?;
    let ports = reserve(&config.published)?;
    let key_log = if config.tls_keys { key_log(account.as_ref())? } else { None };
    // The last, for it may take long.
    let filter = config.filter.as_deref();
    let filter = filter.map(|expression| filter::compile(expression, linktype::EN10MB)).transpose()?;
    if filter.as_ref().is_some_and(|filter| !filter.is_optimised) {
        Voice::new(config.words).not_optimised();
    }
    Ok(Host { device, filter, account, cgroup, ports, key_log })
}

/// The file that the variable of the program names already, opened as the program would.
fn key_log(account: Option<&Account>) -> Result<Option<File>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("read", "the list of mounts")?;
    if !mounts.lines().any(|mount| mount.split(' ').nth(4) == Some("/")) {
        return Err(Error::told(
            "--tls-keys needs a mount of its own for the program, and the root of this chroot is no mount point: \
             bind it to itself with 'mount --bind'",
        ));
    }
    let Some(path) = std::env::var_os(tls_keys::VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let open = || open_key_log(&path);
    let opened = account.map_or_else(open, |account| Invoker::of(account).act(open));
    opened.map(Some).context("open", format_args!("{} of {}", path.display(), tls_keys::VARIABLE))
}

/// Nobody waits for the reader of a pipe.
fn open_key_log(path: &OsStr) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK).open(path)
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
