//! A cgroup for the program's tree: who is in it is traced, and who is left in it can be ended.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{change::Change, run_id::RunId};
use crate::{
    cgroup::{self, Hidden, Own, below},
    error::{Context, Error, Result},
};

/// How the names of our cgroups begin; the run's name follows.
pub const PREFIX: &str = "nsntrace-";

/// How long processes may take to be gone after a SIGKILL.
const LAST_BREATH: Duration = Duration::from_secs(2);

/// How long until it is sent again.
const KILL_AGAIN: Duration = Duration::from_millis(100);

/// A cgroup of ours.
#[derive(Clone, Debug)]
pub struct Leaf {
    path: PathBuf,
    hidden: Option<Hidden>,
}

impl Leaf {
    /// The leaf of a run below our own cgroup; it is not made yet.
    pub fn of(id: RunId, own: &Own) -> Self {
        Self { path: own.path.join(format!("{PREFIX}{id}")), hidden: own.hidden.clone() }
    }

    /// What it is to be removed by, whoever does it.
    pub fn change(&self) -> Change {
        let Some(hidden) = &self.hidden else {
            return Change::Cgroup { path: self.path.clone(), is_hidden: false };
        };
        let name = self.path.file_name().unwrap_or_default();
        Change::Cgroup { path: Path::new("/").join(&hidden.own).join(name), is_hidden: true }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it, without controllers: it only says who belongs to the program.
    ///
    /// # Errors
    /// Where the file system is read-only, or the parent allows no more cgroups.
    pub fn create(&self) -> Result<()> {
        fs::create_dir(&self.path).context("create", format_args!("cgroup {}", self.path.display()))
    }

    /// The way in, for a process.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn door(&self) -> Result<Door> {
        let procs = self.path.join("cgroup.procs");
        Ok(Door {
            folder: File::open(&self.path).context("open", self.path.display())?,
            procs: File::options().write(true).open(&procs).context("open", procs.display())?,
        })
    }

    /// The file that tells of the last process's end: the kernel signals a change of it as exceptional.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn events(&self) -> Result<Events> {
        let path = self.path.join("cgroup.events");
        File::open(&path).map(Events).context("open", path.display())
    }

    /// The file that tells how long its processes have run.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn work(&self) -> Result<Work> {
        let path = self.path.join("cpu.stat");
        File::open(&path).map(Work).context("open", path.display())
    }

    /// The processes in it and below it. Those of another pid namespace have no number here, which the kernel tells as 0.
    pub fn processes(&self) -> Vec<Pid> {
        let pids = cgroup::processes(&self.path).into_iter().filter(|pid| *pid > 0);
        pids.filter_map(|pid| i32::try_from(pid).ok()).map(Pid::from_raw).collect()
    }

    /// Sends a signal to each of them.
    pub fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            let _ = kill(pid, signal);
        }
    }

    /// Ends all of them at once, forks included.
    pub fn kill(&self) {
        // cgroup.kill is there from Linux 5.14 on. Before, nobody forks while it is frozen, which takes a moment: one who
        // was just forking may have to be ended again.
        if fs::write(self.path.join("cgroup.kill"), "1").is_err() {
            let _ = fs::write(self.path.join("cgroup.freeze"), "1");
            self.signal(Signal::SIGKILL);
            let _ = fs::write(self.path.join("cgroup.freeze"), "0");
        }
    }

    fn wait_until_empty(&self) -> Result<()> {
        let mut events = self.events()?;
        let deadline = Instant::now() + LAST_BREATH;
        while events.is_populated()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::told(format!("processes in cgroup {} do not end", self.path.display())));
            }
            let timeout = PollTimeout::try_from(left.min(KILL_AGAIN)).unwrap_or(PollTimeout::MAX);
            if poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) == Ok(0) {
                self.kill();
            }
        }
        Ok(())
    }
}

/// A cgroup's `cpu.stat`.
#[derive(Debug)]
pub struct Work(File);

impl Work {
    /// For how long its processes have run, in microseconds; none where the kernel does not say.
    pub fn done(&self) -> Option<u64> {
        let mut text = [0; 256];
        let length = self.0.read_at(&mut text, 0).ok()?;
        let first = str::from_utf8(&text[..length]).ok()?.lines().next()?;
        first.strip_prefix("usage_usec ")?.parse().ok()
    }
}

/// What a process gets into a cgroup by.
#[derive(Debug)]
pub struct Door {
    folder: File,
    procs: File,
}

impl Door {
    /// Moves the calling process in.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn pass(&self) -> io::Result<()> {
        (&self.procs).write_all(b"0")
    }
}

impl AsFd for Door {
    /// The cgroup's folder.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// A cgroup's `cgroup.events`.
#[derive(Debug)]
pub struct Events(File);

impl Events {
    /// Whether a process is in the cgroup or below it. Asking is also what readies the next notification.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub fn is_populated(&mut self) -> Result<bool> {
        let mut text = String::new();
        self.0.rewind().and_then(|()| self.0.read_to_string(&mut text)).context("read", "cgroup.events")?;
        Ok(!text.lines().any(|line| line == "populated 0"))
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Ends whoever is left in the cgroup, and removes it. A hidden one counts from the root of a cgroup2 that is mounted for
/// this alone.
///
/// # Errors
/// Where a process does not end, or the kernel refuses to remove it.
pub fn remove(path: &Path, is_hidden: bool) -> Result<()> {
    let hidden = is_hidden.then(|| Hidden::new(PathBuf::new())).transpose()?;
    let path = &match &hidden {
        Some(hidden) => hidden.path(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    };
    if !path.exists() {
        return Ok(());
    }
    let leaf = Leaf { path: path.clone(), hidden };
    if leaf.events()?.is_populated()? {
        leaf.kill();
        leaf.wait_until_empty()?;
    }
    // The program may have made cgroups of its own below.
    for path in below(path).iter().rev() {
        match fs::remove_dir(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).context("remove", format_args!("cgroup {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
