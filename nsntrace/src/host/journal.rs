//! What one run has changed in the host, as plain data: one line a change, written down before it is made.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, BorrowedFd},
};

use nix::fcntl::Flock;

use super::{
    change::Change,
    run_dir::{MAX_RECORD_BYTES, RUN_DIR},
    run_id::RunId,
};
use crate::error::{Context, Error, Result};

/// The record of a run, locked by its owner.
#[derive(Debug)]
pub struct Journal {
    id: RunId,
    file: Flock<File>,
    changes: Vec<Change>,
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Journal {
    /// The record in this file, where these are written down already.
    pub(super) fn new(id: RunId, file: Flock<File>, changes: Vec<Change>) -> Self {
        Self { id, file, changes }
    }

    /// The run that it belongs to.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// What was recorded, in that order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Writes a change down, before it is made.
    ///
    /// # Errors
    /// Where the line cannot be written.
    pub fn record(&mut self, change: Change) -> Result<()> {
        let mut line = serde_json::to_vec(&change).context("write down", "a change")?;
        line.push(b'\n');
        let before = self.file.metadata().context("look at", "a record")?.len();
        if before + line.len() as u64 > MAX_RECORD_BYTES {
            return Err(Error::told("there are too many changes for one trace: publish fewer ports"));
        }
        if let Err(error) = self.file.write_all(&line) {
            // Half a line must not stand before the next one.
            let _ = self.file.set_len(before);
            return Err(error).context("write to", format_args!("{RUN_DIR}/{}", self.id));
        }
        self.changes.push(change);
        Ok(())
    }
}
