//! Opening the trace file as the user who asked for it, not as root.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, ErrorKind, Seek},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    unistd::AccessFlags,
};

use super::invoker::{Invoker, may};
use crate::{
    config::Outfile,
    error::{Context, Result},
};

/// A file that a trace will be written to. Until then an older trace in it stays as it is, and dropped, it takes away
/// the empty file that it made.
#[derive(Debug)]
pub struct TraceFile {
    file: File,
    /// None for stdout, which is not ours to empty or to remove.
    path: Option<PathBuf>,
    /// Made by us and not written to yet.
    fresh: bool,
    /// Bytes that were in it before the trace.
    before: u64,
    invoker: Option<Invoker>,
}

impl TraceFile {
    /// Opens the file without changing what is in it. One of several has to be a file proper: where there is a pipe in
    /// its place, nobody waits for a reader.
    ///
    /// # Errors
    /// Where the user may not write there.
    pub fn open(outfile: &Outfile, invoker: Option<Invoker>, one_of_several: bool) -> Result<Self> {
        let path = match outfile {
            Outfile::Path(path) => path,
            Outfile::Stdout => {
                let stdout = nix::unistd::dup(io::stdout()).context("use", "stdout")?;
                set_close_on_exec(&stdout).context("use", "stdout")?;
                let file = File::from(stdout);
                let before = place(&file).unwrap_or(0);
                return Ok(Self { file, path: None, fresh: false, before, invoker: None });
            }
        };
        let opened = Invoker::act_for(invoker.as_ref(), || open(path, one_of_several));
        let who = invoker.as_ref().map(|invoker| format!(" as user {}, who called sudo", invoker.uid()));
        let who = who.unwrap_or_default();
        let (file, fresh) = opened.context("open", format_args!("the trace file {}{who}", path.display()))?;
        Ok(Self { file, path: Some(path.clone()), fresh, before: 0, invoker })
    }

    /// Whether it could be opened; nothing is made, and no reader of a pipe is waited for.
    ///
    /// # Errors
    /// As [`TraceFile::open`].
    pub fn check(outfile: &Outfile, invoker: Option<Invoker>, one_of_several: bool) -> Result<()> {
        let Outfile::Path(path) = outfile else { return Ok(()) };
        let looked = Invoker::act_for(invoker.as_ref(), || could_open(path, one_of_several));
        looked.context("write", format_args!("the trace file {}", path.display()))
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        self.path.as_ref().map_or("stdout".to_owned(), |path| path.display().to_string())
    }

    /// Whether what the program writes to our stdout would come in between. A device takes both.
    pub fn is_stdout(&self) -> bool {
        let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        let same = |stdout: File| Ok((stdout.metadata()?, self.file.metadata()?));
        self.path.is_none()
            || stdout.and_then(same).is_ok_and(|(stdout, own)| {
                !own.file_type().is_char_device() && (stdout.dev(), stdout.ino()) == (own.dev(), own.ino())
            })
    }

    /// Empties the file for a new trace.
    ///
    /// # Errors
    /// Where it cannot be emptied.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.fresh = false;
        if self.path.is_some() && self.is_regular() {
            self.file.set_len(0)?;
        }
        Ok(())
    }

    /// Takes the right to read it from everybody but its owner.
    ///
    /// # Errors
    /// Where it belongs to somebody else.
    pub(super) fn keep_secret(&self) -> io::Result<()> {
        let found = self.file.metadata()?;
        if self.path.is_none() || !found.is_file() || found.mode() & 0o077 == 0 {
            return Ok(());
        }
        let take = || self.file.set_permissions(Permissions::from_mode(found.mode() & 0o700));
        Invoker::act_for(self.invoker.as_ref(), take)
    }

    /// Takes away what is behind the first `length` bytes of the trace, if that can be done.
    pub(super) fn cut(&self, length: u64) {
        if self.is_regular() {
            // Why the trace ended is known; that it ends with half a packet then is the lesser evil.
            let _ = self.file.set_len(self.before + length);
        }
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether what is written may be read at once, by somebody who waits for it.
    pub(super) fn is_live(&self) -> bool {
        !self.is_regular() && !self.is_null()
    }

    /// Whether it is the device that takes all, and keeps nothing.
    fn is_null(&self) -> bool {
        let null = nix::sys::stat::makedev(1, 3);
        self.file.metadata().is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == null)
    }

    fn is_regular(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.is_file())
    }

    /// Whether the path still leads to the file that was opened.
    fn is_in_place(&self) -> bool {
        let id = |found: std::fs::Metadata| (found.dev(), found.ino());
        let at_path = self.path.as_ref().and_then(|path| path.symlink_metadata().map(id).ok());
        at_path.is_some() && at_path == self.file.metadata().map(id).ok()
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        let Some(path) = self.path.as_ref().filter(|_| self.fresh) else { return };
        let remove = || if self.is_in_place() { std::fs::remove_file(path) } else { Ok(()) };
        let _ = Invoker::act_for(self.invoker.as_ref(), remove);
    }
}

/// The file, and whether it is new. A trace holds what the program sent: nobody else may read a new one.
fn open(path: &Path, only_regular: bool) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if only_regular {
        options.custom_flags(libc::O_NONBLOCK);
    }
    match options.clone().create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // A symbolic link that leads nowhere yet exists too, and is created through.
            let file = options.create(true).open(path)?;
            if only_regular && !file.metadata()?.is_file() {
                return Err(not_regular());
            }
            Ok((file, false))
        }
        Err(error) => Err(error),
    }
}

/// Whether a file could be opened to write to it, and made where there is none. Nothing is made.
///
/// # Errors
/// Why not.
pub fn could_open(path: &Path, only_regular: bool) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match path.metadata() {
        Ok(found) if found.is_dir() => Err(io::Error::from_raw_os_error(libc::EISDIR)),
        Ok(found) if only_regular && !found.is_file() => Err(not_regular()),
        Ok(_) => Ok(may(path, AccessFlags::W_OK)?),
        Err(_) => Ok(may(folder.unwrap_or(Path::new(".")), AccessFlags::W_OK | AccessFlags::X_OK)?),
    }
}

fn not_regular() -> io::Error {
    io::Error::other("it is no regular file, as -C and -G need them")
}

/// Where the next write goes.
fn place(mut file: &File) -> io::Result<u64> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    if flags.contains(OFlag::O_APPEND) { Ok(file.metadata()?.len()) } else { file.stream_position() }
}

fn set_close_on_exec(fd: &std::os::fd::OwnedFd) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_new_file_is_private_and_goes_away_unused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.pcap");
        let file = TraceFile::open(&Outfile::Path(path.clone()), None, false).expect("opened");
        assert_eq!(path.metadata().expect("there").mode() & 0o777, 0o600);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn an_old_trace_stays_until_a_new_one_begins() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.pcap");
        fs::write(&path, "old").expect("written");
        let mut file = TraceFile::open(&Outfile::Path(path.clone()), None, false).expect("opened");
        assert_eq!(fs::read(&path).expect("there"), b"old");
        file.begin().expect("emptied");
        drop(file);
        assert_eq!(fs::read(&path).expect("there"), b"");
    }

    #[test]
    fn what_took_its_place_is_not_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.pcap");
        let file = TraceFile::open(&Outfile::Path(path.clone()), None, false).expect("opened");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "other").expect("written");
        drop(file);
        assert_eq!(fs::read(&path).expect("there"), b"other");
    }

    #[test]
    fn nobody_waits_for_a_reader_of_one_of_several() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.pcap1");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).expect("made");
        TraceFile::open(&Outfile::Path(path.clone()), None, true).expect_err("no reader");
        let _reader =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("opened");
        let error = TraceFile::open(&Outfile::Path(path), None, true).expect_err("a pipe");
        assert!(error.to_string().contains("no regular file"), "{error}");
    }
}
