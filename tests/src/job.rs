//! A command for the lab: what it is told, and how it gets there.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{io, process};

use anyhow::{Context, Result};

use crate::space::Space;
use crate::{Cgroup, Done, Running};

/// What a root shell on a plain host has; a test run's own environment must not matter.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/sh"),
    ("LC_ALL", "C.UTF-8"),
];

/// For `close_range`. Rust's own pipe to the child stays open until exec.
const CLOSE_ON_EXEC: i32 = libc::CLOSE_RANGE_CLOEXEC.cast_signed();

/// More descriptors than a test run has open.
const FEW: RawFd = 4096;

/// A command that is to run in the lab, in a working directory of its own.
#[derive(Debug)]
pub struct Job {
    command: Command,
    words: String,
    dir: PathBuf,
    limit: Duration,
}

impl Job {
    /// `dir` must not exist yet: it becomes the working directory, with the output in files beside it.
    pub(crate) fn new<W: AsRef<OsStr>>(
        space: &Space,
        cgroup: &Cgroup,
        dir: PathBuf,
        words: impl IntoIterator<Item = W>,
    ) -> Result<Self> {
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let words: Vec<_> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let (program, arguments) = words.split_first().context("a job without a program")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(ENVIRONMENT).stdin(Stdio::null());
        command.stdout(File::create(dir.with_extension("stdout"))?);
        command.stderr(File::create(dir.with_extension("stderr"))?);
        enter(&mut command, space, cgroup.procs()?, &dir)?;
        Ok(Self { words: format!("{words:?}"), command, dir, limit: Duration::from_secs(60) })
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Puts a program of that name, a script of the shell's, into its working directory, which is the first in PATH then.
    pub fn tool(self, name: &str, script: &str) -> Result<Self> {
        let path = self.dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.dir.display());
        Ok(self.env("PATH", &path))
    }

    /// Gives these bytes on stdin, which is empty otherwise.
    pub fn input(mut self, bytes: &[u8]) -> Result<Self> {
        let path = self.dir.with_extension("stdin");
        fs::write(&path, bytes)?;
        self.command.stdin(File::open(path)?);
        Ok(self)
    }

    /// Leaves stdin open, to be written to with [`Running::stdin_pipe`].
    pub fn told(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    /// Makes stdout a pipe, to be read with [`Running::stdout_pipe`]; [`Done::stdout`] is empty then.
    pub fn piped(mut self) -> Self {
        self.command.stdout(Stdio::piped());
        self
    }

    /// The time after which it counts as hanging. A minute, if not said.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Its working directory, to put files into before it starts.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts it.
    pub fn spawn(mut self) -> Result<Running> {
        let child = self.command.spawn().with_context(|| format!("cannot start {}", self.words))?;
        Ok(Running::new(child, self.words, self.dir, self.limit))
    }

    /// Runs it to its end.
    pub fn run(self) -> Result<Done> {
        self.spawn()?.wait()
    }

    /// Runs it to its end, which has to be a success, and returns what it wrote to stdout.
    pub fn output(self) -> Result<String> {
        Ok(self.run()?.exited(0)?.text())
    }
}

/// Lets the child move into the lab between fork and exec.
fn enter(command: &mut Command, space: &Space, procs: File, dir: &Path) -> Result<()> {
    let (net, mnt) = (space.net.as_raw_fd(), space.mnt.as_raw_fd());
    let dir = CString::new(dir.as_os_str().as_bytes())?;
    let parent = process::id();
    let enter = move || {
        check(
            // SAFETY: a buffer of one byte, and a descriptor that this closure owns.
            unsafe { libc::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) },
        )?;
        join(net, libc::CLONE_NEWNET)?;
        join(mnt, libc::CLONE_NEWNS)?;
        // The working directory follows: setns has just set it to the namespace's root. A session of its own
        // keeps the job away from the terminal, the signal ends it when the tests are killed, and what the tests
        // have inherited themselves is not passed on.
        // SAFETY: plain system calls; `dir` ends with a zero byte.
        unsafe {
            // Below nohup it would be ignored.
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            check(libc::chdir(dir.as_ptr()) as isize)?;
            check(libc::setsid() as isize)?;
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) as isize)?;
            if libc::close_range(3, u32::MAX, CLOSE_ON_EXEC) < 0 {
                // Linux before 5.11 does not have the flag. It fails for numbers that are not open.
                for fd in 3..FEW {
                    libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
                }
            }
            if libc::getppid().cast_unsigned() != parent {
                libc::_exit(1);
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

fn join(namespace: RawFd, kind: i32) -> io::Result<()> {
    // SAFETY: the lab outlives the child's exec, and with it the descriptor.
    check(unsafe { libc::setns(namespace, kind) } as isize)
}

fn check(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
