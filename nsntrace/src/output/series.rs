//! The files of a trace, one after the other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{file_names::FileNames, invoker::Invoker, trace_file::TraceFile};
use crate::{
    capabilities,
    config::{Outfile, Rotation},
    error::{Context, Result},
};

/// The file that a trace is in, and those to come.
#[derive(Debug)]
pub struct Series {
    file: TraceFile,
    names: FileNames,
    invoker: Option<Invoker>,
    /// Whether nobody else may read even a file that was there before.
    is_secret: bool,
}

impl Series {
    /// Opens the first file, without changing what is in it.
    ///
    /// # Errors
    /// Where the user may not write there, or it is no regular file and not the only one.
    pub fn open(outfile: &Outfile, rotation: Rotation, invoker: Option<Invoker>) -> Result<Self> {
        let names = FileNames::new(outfile.clone(), rotation, now());
        let file = TraceFile::open(&names.present()?, invoker.clone(), names.are_several())?;
        Ok(Self { file, names, invoker, is_secret: false })
    }

    /// Keeps each file from others, also one that was there before.
    pub(super) fn keep_secret(&mut self) {
        self.is_secret = true;
    }

    /// Whether the first file could be opened. Returns its name.
    ///
    /// # Errors
    /// Where the user may not write there.
    pub fn check(outfile: &Outfile, rotation: Rotation, invoker: Option<Invoker>) -> Result<Outfile> {
        let names = FileNames::new(outfile.clone(), rotation, now());
        let first = names.present()?;
        TraceFile::check(&first, invoker, names.are_several()).map(|()| first)
    }

    /// Gives up what the calling thread may do beyond what the files take: from here on it is to be the one that writes them.
    ///
    /// # Errors
    /// Where the rights of the user that they are written for cannot be had, or others not be given up.
    pub(super) fn confine(&self) -> Result<()> {
        let kept = match &self.invoker {
            Some(invoker) => {
                invoker.take_on().context("take on", format_args!("the rights of user {}", invoker.uid()))?;
                &[]
            }
            // The one file is open.
            None if !self.names.are_several() && !self.is_secret => &[],
            None => capabilities::FILES_OF_ROOT,
        };
        capabilities::keep_only(kept)
    }

    /// The present file.
    pub fn file(&self) -> &TraceFile {
        &self.file
    }

    /// The names of the files.
    pub(super) fn names(&self) -> &FileNames {
        &self.names
    }

    /// The names of the files, to go on with.
    pub(super) fn names_mut(&mut self) -> &mut FileNames {
        &mut self.names
    }

    /// Empties the present file for a new trace.
    ///
    /// # Errors
    /// Where it cannot be emptied, or kept from others.
    pub(super) fn begin(&mut self) -> std::io::Result<()> {
        if self.is_secret {
            self.file.keep_secret()?;
        }
        self.file.begin()
    }

    /// Leaves the present file for the one that has the present name.
    ///
    /// # Errors
    /// Where the user may not write there, or it is no regular file.
    pub(super) fn follow(&mut self) -> Result<()> {
        self.file = TraceFile::open(&self.names.present()?, self.invoker.clone(), true)?;
        Ok(())
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
