//! The key log that the program would have written anyway.

use std::{
    env,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Error, Result},
    output::{invoker::Invoker, trace_file::could_open},
    proc, tls_keys,
    user::Account,
};

/// Whether it could be opened, and the program can have one of its own; nothing is made.
pub(super) fn check(account: Option<&Account>) -> Result<()> {
    own()?;
    let Some(path) = named() else { return Ok(()) };
    opened(&path, account, |path| could_open(path, false))
}

/// The file that the variable of the program names already, opened as the program would.
pub(super) fn open(account: Option<&Account>) -> Result<Option<File>> {
    own()?;
    named().map(|path| opened(&path, account, append_to)).transpose()
}

/// Whether the program can have a key log of its own.
fn own() -> Result<()> {
    let mounts = proc::mounts().context("read", "the list of mounts")?;
    if !mounts.lines().any(|mount| mount.split(' ').nth(4) == Some("/")) {
        return Err(Error::told(
            "--tls-keys needs a mount of its own for the program, and the root of this chroot is no mount point: \
             bind it to itself with 'mount --bind'",
        ));
    }
    Ok(())
}

fn named() -> Option<PathBuf> {
    env::var_os(tls_keys::VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// What `open` makes of it with the program's rights.
fn opened<T: Send>(
    path: &Path,
    account: Option<&Account>,
    open: impl FnOnce(&Path) -> io::Result<T> + Send,
) -> Result<T> {
    let opened = Invoker::act_for(account.map(Invoker::of).as_ref(), || open(path));
    opened.context("open", format_args!("{} of {}", path.display(), tls_keys::VARIABLE))
}

/// Nobody waits for the reader of a pipe.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK).open(path)
}
