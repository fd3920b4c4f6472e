//! A command in the lab: what it is told, how it runs, what it left.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{io, process};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::space::Space;
use crate::{Cgroup, SOON, Trace, until};

/// What a root shell on a plain host has; a test run's own environment must not matter.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/sh"),
    ("LC_ALL", "C.UTF-8"),
];

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

    /// Gives these bytes on stdin, which is empty otherwise.
    pub fn input(mut self, bytes: &[u8]) -> Result<Self> {
        let path = self.dir.with_extension("stdin");
        fs::write(&path, bytes)?;
        self.command.stdin(File::open(path)?);
        Ok(self)
    }

    /// Leaves stdin open, to be written to with [`Running::tell`].
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
        let began = SystemTime::now();
        let child = self.command.spawn().with_context(|| format!("cannot start {}", self.words))?;
        Ok(Running { child, words: self.words, dir: self.dir, limit: self.limit, began })
    }

    /// Runs it to its end.
    pub fn run(self) -> Result<Done> {
        self.spawn()?.wait()
    }

    /// Runs it to its end, which has to be a success, and returns what it wrote to stdout.
    pub fn output(self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.run()?.exited(0)?.stdout).into_owned())
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
        // keeps the job away from the terminal, and the signal ends it when the tests are killed.
        // SAFETY: plain system calls; `dir` ends with a zero byte.
        unsafe {
            check(libc::chdir(dir.as_ptr()) as isize)?;
            check(libc::setsid() as isize)?;
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) as isize)?;
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

/// A command that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    words: String,
    dir: PathBuf,
    limit: Duration,
    began: SystemTime,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to {}", self.words))
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.dir.with_extension("stdout"))?).into_owned())
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.dir.with_extension("stderr"))?).into_owned())
    }

    /// Waits until stdout contains `text`, and returns what is there by then.
    pub fn says(&mut self, text: &str) -> Result<String> {
        self.shows(text, Self::stdout)
    }

    /// Waits until stderr contains `text`, and returns what is there by then.
    pub fn complains(&mut self, text: &str) -> Result<String> {
        self.shows(text, Self::stderr)
    }

    fn shows(&mut self, text: &str, read: impl Fn(&Self) -> Result<String>) -> Result<String> {
        until(&format!("{text:?} from {}", self.words), SOON, || {
            let ended = self.child.try_wait()?.is_some();
            let so_far = read(self)?;
            if so_far.contains(text) {
                return Ok(Some(so_far));
            }
            ensure!(!ended, "{} ended without {text:?}; its stderr: {}", self.words, self.stderr()?);
            Ok(None)
        })
    }

    /// Its stdin, if the job was [`Job::told`]; dropping it closes stdin.
    pub fn stdin_pipe(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().context("stdin is no pipe, or taken already")
    }

    /// Its stdout, if the job was [`Job::piped`].
    pub fn stdout_pipe(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().context("stdout is no pipe, or taken already")
    }

    /// Its working directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it runs still.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end, within the job's limit.
    pub fn wait(mut self) -> Result<Done> {
        let began = Instant::now();
        let status =
            until(&format!("the end of {}", self.words), self.limit, || Ok(self.child.try_wait()?));
        let status =
            status.with_context(|| format!("its stderr: {:?}", self.stderr().unwrap_or_default()))?;
        let stdout = fs::read(self.dir.with_extension("stdout"))?;
        let stderr = self.stderr()?;
        Ok(Done {
            status,
            stdout,
            stderr,
            words: self.words.clone(),
            dir: self.dir.clone(),
            began: self.began,
            waited: began.elapsed(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the child has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
    /// Its working directory.
    pub dir: PathBuf,
    /// When it was started.
    pub began: SystemTime,
    /// How long [`Running::wait`] took.
    pub waited: Duration,
    words: String,
}

impl Done {
    /// Itself, if it exited with this status.
    pub fn exited(self, status: i32) -> Result<Self> {
        if self.status.code() != Some(status) {
            let (words, got, stderr) = (&self.words, self.status, &self.stderr);
            bail!("expected exit status {status}, got {got} from {words}; its stderr:\n{stderr}");
        }
        Ok(self)
    }

    /// What it wrote to stdout, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The trace that it wrote under the default name.
    pub fn trace(&self) -> Trace {
        self.trace_at("nsntrace.pcap")
    }

    /// The trace that it wrote under this name.
    pub fn trace_at(&self, name: &str) -> Trace {
        Trace::new(self.dir.join(name))
    }
}
