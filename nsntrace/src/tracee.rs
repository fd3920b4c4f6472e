//! The program under trace: started in its namespace and cgroup, as the user that was asked for, with nothing of ours.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::Signal,
    unistd::{Pid, getppid, setgid, setgroups, setuid},
};

use crate::{
    error::{Context, Error, Result},
    limits::Limits,
    namespace::{
        covers::{self, Covers},
        mounts,
        netns::Netns,
    },
    signals::Dispositions,
    tls_keys,
    user::Account,
};

/// What a program is started with.
pub struct Start<'a> {
    /// Its name, or its path.
    pub program: &'a OsStr,
    /// Its arguments.
    pub arguments: &'a [OsString],
    /// The user, if not the one that we are.
    pub account: Option<&'a Account>,
    /// Its network namespace.
    pub netns: &'a Netns,
    /// What it sees in place of the host's files.
    pub covers: Arc<Covers>,
    /// `cgroup.procs` of its cgroup.
    pub door: File,
    /// Its signals.
    pub dispositions: Dispositions,
    /// Its limits.
    pub limits: Limits,
    /// Whether its stdout is our stderr, since ours is the trace's.
    pub stdout_to_stderr: bool,
}

/// Finds the program as execvp would, so that a wrong name is told before anything is changed.
///
/// # Errors
/// Where there is no such program.
pub fn find(program: &OsStr) -> Result<PathBuf> {
    let told = |why: &str| Error::told(format!("cannot run '{}': {why}", program.display()));
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        let found = path.metadata().map_err(|error| told(&error.to_string()))?;
        if found.is_dir() {
            return Err(told("it is a directory"));
        }
        return if is_executable(&path) { Ok(path) } else { Err(told("it is not executable")) };
    }
    let folders = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .find(|path| is_executable(path))
        .ok_or_else(|| told("there is no such program in PATH"))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Starts the program.
///
/// It is killed when the calling thread ends, so that is to be one that lives as long as the trace.
///
/// # Errors
/// Where it cannot be executed, or one of the steps before fails.
pub fn spawn(start: Start<'_>) -> Result<Pid> {
    let object = format!("'{}'", start.program.display());
    let mut command = Command::new(start.program);
    command.args(start.arguments);
    if start.stdout_to_stderr {
        let stderr = io::stderr().as_fd().try_clone_to_owned().context("use", "stderr")?;
        command.stdout(Stdio::from(stderr));
    }
    for (name, value) in start.account.map(Account::environment).unwrap_or_default() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if start.covers.has_key_log() {
        command.env(tls_keys::VARIABLE, covers::KEY_LOG_PATH);
    }
    let netns = start.netns.as_fd().try_clone_to_owned().context("hold", "the network namespace")?;
    let mut inside = Inside {
        netns,
        covers: start.covers,
        door: start.door,
        account: start.account.cloned(),
        dispositions: start.dispositions,
        limits: start.limits,
        parent: nix::unistd::getpid(),
    };
    // SAFETY: between fork and exec it makes system calls only, on memory that is there already.
    unsafe { command.pre_exec(move || inside.enter()) };
    let child = command.spawn().context("start", object)?;
    // A pid is positive and below 2^22.
    Ok(Pid::from_raw(child.id().cast_signed()))
}

/// What is done in the child before the program.
struct Inside {
    netns: OwnedFd,
    covers: Arc<Covers>,
    door: File,
    account: Option<Account>,
    dispositions: Dispositions,
    limits: Limits,
    parent: Pid,
}

impl Inside {
    fn enter(&mut self) -> io::Result<()> {
        self.door.write_all(b"0")?;
        setns(&self.netns, CloneFlags::CLONE_NEWNET)?;
        mounts::enter_own(&self.covers)?;
        self.limits.apply()?;
        self.dispositions.apply()?;
        if let Some(account) = &self.account {
            setgroups(&account.groups)?;
            setgid(account.gid)?;
            setuid(account.uid)?;
        }
        // Last, since a change of user clears it; and the parent may be gone by now.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() == self.parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It has ended, with this status for a shell: its own, or 128 and the signal's number.
    Ended(Pid, u8),
    /// It was stopped by a signal.
    Stopped(Pid),
}

/// News of children, and of their orphans that have become ours, as far as there are any.
pub fn news() -> impl Iterator<Item = News> {
    std::iter::from_fn(|| {
        let mut status = 0;
        // SAFETY: it writes a status to the place given. The call of the nix crate loses a child that a real-time
        // signal has ended.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::WUNTRACED) };
        (pid > 0).then(|| (Pid::from_raw(pid), status))
    })
    .filter_map(|(pid, status)| match status {
        status if libc::WIFEXITED(status) => Some(News::Ended(pid, eight_bits(libc::WEXITSTATUS(status)))),
        status if libc::WIFSIGNALED(status) => {
            Some(News::Ended(pid, eight_bits(128 + libc::WTERMSIG(status))))
        }
        status if libc::WIFSTOPPED(status) => Some(News::Stopped(pid)),
        _ => None,
    })
}

/// The kernel keeps eight bits of a status, and signals end at 64.
fn eight_bits(status: i32) -> u8 {
    u8::try_from(status & 0xff).unwrap_or(u8::MAX)
}
