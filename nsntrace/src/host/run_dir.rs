//! The folder where runs write down what they have changed in the host: a record a run.
//!
//! A record's owner holds a lock on it: who can take the lock knows that the owner is dead. The folder and its files
//! are read as root, so whatever is not as only root can have made it is refused.

use std::{
    fs::{DirBuilder, DirEntry, File},
    io::{self, ErrorKind, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    sys::signal::Signal,
    unistd::{AccessFlags, eaccess},
};

use super::{
    change::{Change, parse},
    journal::Journal,
    lock::Lock,
    run_id::RunId,
};
use crate::{
    error::{Context, Error, Result},
    proc,
};

/// The run folder.
pub const RUN_DIR: &str = "/run/nsntrace";

/// Name of the lock's file in it.
const LOCK: &str = "lock";

/// A folder in it that a program traced with `--tls-keys` finds there, and that is none of what is traced from within.
const PROGRAM: &str = "program";

/// A record is some hundred bytes long, and some thousand more for each published port; a larger file is none.
pub(super) const MAX_RECORD_BYTES: u64 = 16 << 20;

/// The run folder, known to be root's own.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Opens /run/nsntrace, and makes it where it is missing.
    ///
    /// # Errors
    /// Where something else stands there, or where others may write in it.
    pub fn open() -> Result<Self> {
        Self::at(Path::new(RUN_DIR), 0)
    }

    fn at(path: &Path, owner: u32) -> Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).context("create", path.display());
            }
            _ => {}
        }
        Self::existing(path, owner)
    }

    /// What is in /run/nsntrace that is to be undone, in records; none where there is no such folder. Nothing is made.
    ///
    /// # Errors
    /// As [`RunDir::open`] has them, and where something in the folder is no record of ours.
    pub fn count_dead() -> Result<usize> {
        let path = Path::new(RUN_DIR);
        if path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return eaccess("/run", AccessFlags::W_OK).map(|()| 0).context("write in", "/run");
        }
        let dir = Self::existing(path, 0)?;
        if !path.join(LOCK).exists() {
            return Ok(dir.ids()?.len());
        }
        // The lock keeps whoever ends just now from taking the record for one that is being undone.
        let _lock = dir.lock(|| None)?;
        Ok(dir.dead()?.len())
    }

    fn existing(path: &Path, owner: u32) -> Result<Self> {
        let found = path.symlink_metadata().context("look at", path.display())?;
        if !found.is_dir() || found.uid() != owner || found.mode() & 0o022 != 0 {
            return Err(Error::told(format!(
                "{} is not a folder that only root writes to: remove it",
                path.display()
            )));
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Waits until no other run holds the lock, or until `give_up` names a signal that asks for the end.
    ///
    /// # Errors
    /// Where the lock file is not a plain file of ours, or the wait was given up.
    pub fn lock(&self, give_up: impl Fn() -> Option<Signal>) -> Result<Lock> {
        let path = self.path.join(LOCK);
        Lock::take(self.open_file(&path, true)?, &path, give_up)
    }

    /// Begins a record. Under the lock, so that a sweep never sees a record that is not locked yet.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn begin(&self) -> Result<Journal> {
        loop {
            let id = RunId::random();
            let path = self.record(id);
            let file = File::options().read(true).append(true).create_new(true).mode(0o600).open(&path);
            match file {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                file => {
                    let file = file.context("create", path.display())?;
                    let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
                        let _ = std::fs::remove_file(&path);
                        errno
                    });
                    let file = file.context("lock", path.display())?;
                    let mut journal = Journal::new(id, file, Vec::new());
                    return match Change::origin().and_then(|origin| journal.record(origin)) {
                        Ok(()) => Ok(journal),
                        Err(error) => self.forget(journal).and(Err(error)),
                    };
                }
            }
        }
    }

    /// The records whose owners are dead, taken over, as far as they can be undone here: all of those of this network
    /// namespace; the cgroups of those whose namespace is gone, and all else with it; none of another namespace.
    ///
    /// # Errors
    /// Where something in the folder is no record of ours.
    pub fn dead(&self) -> Result<Vec<Journal>> {
        let here = Change::origin()?;
        let mut dead = Vec::new();
        for id in self.ids()? {
            let Some(file) = self.open_record(id)? else { continue };
            let Ok(mut file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            let mut changes = self.read(id, &mut file)?;
            if let Some(Change::Origin { inode, .. }) = changes.first().filter(|origin| **origin != here) {
                if is_in_use(*inode) {
                    continue;
                }
                changes.retain(|change| matches!(change, Change::Cgroup { .. }));
            }
            dead.push(Journal::new(id, file, changes));
        }
        Ok(dead)
    }

    /// What the other runs in this network namespace have changed that are alive.
    ///
    /// # Errors
    /// Where something in the folder is no record of ours.
    pub fn alive_besides(&self, own: RunId) -> Result<Vec<Vec<Change>>> {
        let here = Change::origin()?;
        let mut alive = Vec::new();
        for id in self.ids()?.into_iter().filter(|id| *id != own) {
            let Some(file) = self.open_record(id)? else { continue };
            if let Err((mut file, _)) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                let changes = self.read(id, &mut file)?;
                alive.extend((changes.first() == Some(&here)).then_some(changes));
            }
        }
        Ok(alive)
    }

    /// Forgets a record: all of it is undone.
    ///
    /// # Errors
    /// Where the file cannot be removed.
    pub fn forget(&self, journal: Journal) -> Result<()> {
        let path = self.record(journal.id());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("remove", path.display()),
            _ => Ok(()),
        }
    }

    fn record(&self, id: RunId) -> PathBuf {
        self.path.join(id.to_string())
    }

    fn ids(&self) -> Result<Vec<RunId>> {
        let mut ids = Vec::new();
        for entry in self.path.read_dir().context("read", self.path.display())? {
            let entry = entry.context("read", self.path.display())?;
            let name = entry.file_name();
            if name == LOCK || name == PROGRAM || is_of_the_original(&entry) {
                continue;
            }
            let id = name.to_str().filter(|name| name.len() == 8).and_then(|name| name.parse().ok());
            ids.push(id.ok_or_else(|| not_ours(&self.path.join(&name)))?);
        }
        Ok(ids)
    }

    /// None where the record has just been forgotten.
    fn open_record(&self, id: RunId) -> Result<Option<File>> {
        match self.open_file(&self.record(id), false) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            result => result.map(Some),
        }
    }

    fn open_file(&self, path: &Path, create: bool) -> Result<File> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = File::options()
            .read(true)
            .write(true)
            .create(create)
            .mode(0o600)
            .custom_flags(flags.bits())
            .open(path)
            .map_err(|error| if error.raw_os_error() == Some(libc::ELOOP) { refused() } else { error })
            .context("open", path.display())?;
        let found = file.metadata().context("look at", path.display())?;
        let owner = self.path.symlink_metadata().context("look at", self.path.display())?.uid();
        let plain =
            found.is_file() && found.uid() == owner && found.mode() & 0o022 == 0 && found.nlink() <= 1;
        if plain { Ok(file) } else { Err(not_ours(path)) }
    }

    fn read(&self, id: RunId, file: &mut File) -> Result<Vec<Change>> {
        let path = self.record(id);
        let mut text = String::new();
        let size = file.metadata().context("look at", path.display())?.len();
        if size > MAX_RECORD_BYTES || file.read_to_string(&mut text).is_err() {
            return Err(not_ours(&path));
        }
        parse(&text).ok_or_else(|| not_ours(&path))
    }
}

/// Whether it is a folder of the original nsntrace's, which leaves them there when it is killed: they are named after its
/// process, with fewer digits than a run of ours has.
fn is_of_the_original(entry: &DirEntry) -> bool {
    let is_number = |name: &str| name.len() < 8 && name.bytes().all(|byte| byte.is_ascii_digit());
    entry.file_name().to_str().is_some_and(is_number) && entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Whether somebody keeps that network namespace: a process in it or with a descriptor of it, or a mount, as `ip netns`
/// has it.
fn is_in_use(namespace: u64) -> bool {
    let name = format!("net:[{namespace}]");
    let leads_there = |link: PathBuf| link.read_link().is_ok_and(|found| found.as_os_str() == name.as_str());
    let entries =
        |folder: PathBuf| folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let holds = |process: PathBuf| {
        leads_there(process.join("ns/net")) || entries(process.join("fd")).any(leads_there)
    };
    proc::mounts().is_ok_and(|mounts| mounts.contains(&name)) || entries("/proc".into()).any(holds)
}

fn refused() -> io::Error {
    io::Error::other("it is a symbolic link: remove it")
}

fn not_ours(path: &Path) -> Error {
    Error::told(format!("{} is not a record of nsntrace: remove it", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn dir() -> (tempfile::TempDir, RunDir) {
        let temp = tempfile::tempdir().expect("a folder");
        let owner = temp.path().metadata().expect("there").uid();
        let dir = RunDir::at(&temp.path().join("run"), owner).expect("a run folder");
        (temp, dir)
    }

    fn link() -> Change {
        Change::Link { name: "nsgw1".into() }
    }

    #[test]
    fn a_record_is_read_back_when_its_owner_is_dead() {
        let (_temp, dir) = dir();
        let mut journal = dir.begin().expect("a record");
        journal.record(link()).expect("written");
        journal.record(Change::Forwarding { device: "eth1".into(), on_a_router: false }).expect("written");
        assert!(dir.dead().expect("readable").is_empty());
        assert_eq!(dir.alive_besides(RunId::random()).expect("readable"), [journal.changes().to_vec()]);

        let changes = journal.changes().to_vec();
        drop(journal);
        let mut dead = dir.dead().expect("readable");
        assert_eq!(dead[0].changes(), changes);
        dir.forget(dead.remove(0)).expect("removed");
        assert!(dir.dead().expect("readable").is_empty());
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        for (name, make) in [
            ("notes", (|path| fs::write(path, "")) as fn(PathBuf) -> io::Result<()>),
            ("0000000a", |path| fs::write(path, "garbage\n")),
            ("0000000b", |path| symlink("/etc/passwd", path)),
            ("0000000c", |path| fs::create_dir(path)),
            ("0000000d", |path| File::create(path)?.set_len(100 << 20)),
            ("0000000e", |path| {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).map_err(io::Error::from)
            }),
        ] {
            let (_temp, dir) = dir();
            make(dir.path.join(name)).expect("made");
            let error = dir.dead().expect_err(name).to_string();
            assert!(error.contains(name) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn folders_of_the_original_are_left_alone() {
        let (_temp, dir) = dir();
        fs::create_dir(dir.path.join("19602")).expect("made");
        assert!(dir.ids().expect("read").is_empty());
        // Neither a file of such a name, nor any other folder.
        fs::create_dir(dir.path.join("19602x")).expect("made");
        dir.ids().expect_err("another folder");
        fs::remove_dir(dir.path.join("19602x")).expect("removed");
        fs::remove_dir(dir.path.join("19602")).expect("removed");
        fs::write(dir.path.join("19602"), "").expect("written");
        dir.ids().expect_err("a file");
    }

    #[test]
    fn the_folder_itself_must_be_ours() {
        let temp = tempfile::tempdir().expect("a folder");
        let owner = temp.path().metadata().expect("there").uid();
        let path = temp.path().join("run");
        symlink(temp.path(), &path).expect("a link");
        assert!(RunDir::at(&path, owner).is_err());
        fs::remove_file(&path).expect("removed");
        assert!(RunDir::at(&path, owner + 1).is_err());
    }
}
