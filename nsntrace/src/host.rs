//! What is changed in the host for a trace: each change is written down before it is made, and undone on every path.

pub mod base_chains;
mod bridges;
pub mod cgroup_leaf;
pub mod change;
mod departure;
pub mod device;
pub mod events;
pub mod foreign;
pub mod forwarding;
pub mod forwarding6;
pub mod guardian;
pub mod iptables;
pub mod journal;
pub mod legacy;
mod lifeline;
pub mod link;
pub mod localnet;
pub mod lock;
pub mod nat;
mod netfilter;
mod nft;
pub mod own_rules;
mod own_table;
pub mod packet_filter;
pub mod published;
pub mod reserve;
pub mod resolver;
pub mod route;
pub mod run_dir;
pub mod run_id;
mod undo;
pub mod ways;

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    error::{Error, Result},
    words::{plain, say},
};
use change::Change;
use guardian::Guardian;
use journal::Journal;
use lock::Lock;
use run_dir::RunDir;
use run_id::RunId;

/// How long the lock is waited for in the midst of a trace; it is held for some milliseconds, unless much is to be undone.
const PATIENCE: Duration = Duration::from_millis(500);

/// The changes of one run. Dropped, it undoes them: on an error, a panic, or the normal way by [`Changes::undo`]. Where it
/// is not dropped, its guardian does.
#[derive(Debug)]
pub struct Changes {
    dir: RunDir,
    journal: Option<Journal>,
    guardian: Guardian,
}

impl Changes {
    /// Opens the run folder, undoes what dead runs left, and begins a record. The lock keeps other runs out of what
    /// is decided from here until it is dropped: free addresses, and who has switched forwarding on.
    ///
    /// # Errors
    /// Where the run folder is not one that only root can have made, or `give_up` names a signal while the lock is
    /// waited for.
    pub fn begin(guardian: Guardian, give_up: impl Fn() -> Option<Signal>) -> Result<(Self, Lock)> {
        let dir = RunDir::open()?;
        let lock = dir.lock(give_up)?;
        undo::sweep(&dir, &lock)?;
        let journal = dir.begin()?;
        lifeline::RECORD.hold(Some(journal.as_fd()));
        Ok((Self { dir, journal: Some(journal), guardian }, lock))
    }

    /// The name of this run, as it stands in rules, link aliases and the journal.
    pub fn id(&self) -> RunId {
        self.journal().id()
    }

    /// Records a change, then makes it.
    ///
    /// # Errors
    /// Where the record cannot be written, in which case nothing is changed; or what `apply` returns.
    pub fn make<T>(&mut self, change: Change, apply: impl FnOnce() -> Result<T>) -> Result<T> {
        self.journal.as_mut().expect("there until undone").record(change)?;
        apply()
    }

    /// Whether another run, which is alive, has recorded the change. If so it is recorded as ours too: it must stay until
    /// the last of us has ended. Where the other was killed half way, and only a helper of it is left, it may not be made.
    ///
    /// # Errors
    /// Where a record cannot be read, or ours not be written.
    pub fn share(&mut self, change: &Change) -> Result<bool> {
        let others = self.dir.alive_besides(self.id())?;
        match others.into_iter().flatten().find(|other| other.is_shared_with(change)) {
            Some(same) if self.made().contains(&same) => Ok(true),
            Some(same) => self.make(same, || Ok(true)),
            None => Ok(false),
        }
    }

    /// Keeps other runs out once more, for what is decided later. It is not waited for long: a program runs meanwhile.
    ///
    /// # Errors
    /// Where another run holds the lock, or the run folder has been changed.
    pub fn lock(&self) -> Result<Lock> {
        let deadline = Instant::now() + PATIENCE;
        let give_up = || (Instant::now() > deadline).then_some(Signal::SIGALRM);
        self.dir.lock(give_up).map_err(|error| match error {
            Error::Interrupted(_) => Error::told("another run holds the lock of /run/nsntrace"),
            error => error,
        })
    }

    /// What was recorded so far.
    pub fn made(&self) -> &[Change] {
        self.journal().changes()
    }

    /// Undoes everything, as where it is dropped. What fails is said; its record stays for the next start.
    pub fn undo(self) {
        drop(self);
    }

    /// The same before everything that knows of it has ended. Nothing is to be changed or asked any more. `held` may be
    /// closed then: the guardian has it too, and waits for the kernel, as who closes the last one does. `before_the_network`
    /// comes before the kernel may say something of that by the link.
    pub fn undo_early(&mut self, held: &[BorrowedFd<'_>], before_the_network: impl FnOnce()) {
        lifeline::RECORD.hold(None);
        let Some(journal) = self.journal.take() else { return };
        let delete_link = |name: &str, tag: &str| self.guardian.delete_link(name, tag, held);
        for error in undo::undo(&self.dir, journal, None, before_the_network, delete_link) {
            say!("nsntrace: {}", plain(&error.to_string()));
        }
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("there until undone")
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.undo_early(&[], || {});
    }
}
