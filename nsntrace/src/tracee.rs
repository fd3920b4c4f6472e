//! The program under trace: started in its namespace and cgroup, as the user that was asked for, with nothing of ours.

mod launch;
mod news;

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::Signal,
    unistd::{AccessFlags, Pid, dup2_stderr, dup2_stdin, dup2_stdout, getppid},
};

use crate::{
    error::{Context, Error, Result},
    host::cgroup_leaf::Door,
    limits::Limits,
    namespace::{
        covers::{self, Covers},
        mounts,
        netns::Netns,
    },
    output::invoker::{Invoker, may},
    search_path,
    signals::Dispositions,
    tls_keys,
    user::Account,
};
use launch::{Image, launch};

pub use news::{News, news};

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
    pub covers: &'a Covers,
    /// The way into its cgroup.
    pub door: &'a Door,
    /// Its signals.
    pub dispositions: Dispositions,
    /// Its limits.
    pub limits: Limits,
    /// Where its input comes from, and its output goes to.
    pub streams: Streams,
}

/// What a program has for stdin, stdout and stderr.
pub enum Streams {
    /// What we have.
    Ours,
    /// The same, but stdout is our stderr, since ours is the trace's.
    StdoutToStderr,
    /// This device.
    Device(File),
}

/// Finds the program as execvp would for the user that it is to run as, so that a wrong name is told before anything is changed.
///
/// # Errors
/// Where there is no such program, or that user may not execute it.
pub fn find(program: &OsStr, account: Option<&Account>) -> Result<PathBuf> {
    let looked = Invoker::act_for(account.map(Invoker::of).as_ref(), || Ok(look(program)));
    let told = |why: &str| Error::told(format!("cannot run '{}': {why}", program.display()));
    looked.context("look for", format_args!("'{}'", program.display()))?.map_err(|why| match account {
        Some(account) => told(&format!("{why}, for user {}", account.name())),
        None => told(&why),
    })
}

/// With the rights that the calling thread has; else says why not.
fn look(program: &OsStr) -> std::result::Result<PathBuf, String> {
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        let found = path.metadata().map_err(|error| error.to_string())?;
        if found.is_dir() {
            return Err("it is a directory".into());
        }
        return if is_executable(&path) { Ok(path) } else { Err("it is not executable".into()) };
    }
    let found = search_path::places(program).into_iter().find(|path| is_executable(path));
    found.ok_or_else(|| "there is no such program in PATH".into())
}

fn is_executable(path: &Path) -> bool {
    may(path, AccessFlags::X_OK).is_ok() && path.is_file()
}

/// Starts the program.
///
/// It is killed when the calling thread ends, so that is to be one that lives as long as the trace.
///
/// # Errors
/// Where it cannot be executed, or one of the steps before fails.
pub fn spawn(start: Start<'_>) -> Result<Pid> {
    let object = format!("'{}'", start.program.display());
    let path = find(start.program, start.account)?;
    let mut words = vec![start.program];
    words.extend(start.arguments.iter().map(OsString::as_os_str));
    let mut changed = start.account.map(Account::environment).unwrap_or_default();
    if start.covers.has_key_log() {
        changed.push((tls_keys::VARIABLE, Some(covers::KEY_LOG_PATH.into())));
    }
    let own = env::vars_os().filter(|(name, _)| changed.iter().all(|(other, _)| name != other));
    let more = changed.iter().filter_map(|(name, value)| Some((name.into(), value.clone()?)));
    let image = Image::new(&path, &words, own.chain(more)).context("start", &object)?;
    let inside = Inside { parent: nix::unistd::getpid(), start: &start };
    launch(&image, start.door, || inside.enter()).context("start", object)
}

/// What is done in the child before the program.
struct Inside<'a> {
    parent: Pid,
    start: &'a Start<'a>,
}

impl Inside<'_> {
    fn enter(&self) -> io::Result<()> {
        let Start { netns, covers, limits, dispositions, account, streams, .. } = self.start;
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
        mounts::enter_own(covers)?;
        limits.apply()?;
        dispositions.apply()?;
        match streams {
            Streams::Ours => {}
            Streams::StdoutToStderr => dup2_stdout(io::stderr())?,
            Streams::Device(device) => {
                dup2_stdin(device)?;
                dup2_stdout(device)?;
                dup2_stderr(device)?;
            }
        }
        if let Some(account) = account {
            account.become_it()?;
        }
        // Last, since a change of user clears it; and the parent may be gone by now.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() == self.parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}
