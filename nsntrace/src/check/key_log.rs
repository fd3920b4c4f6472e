//! The key log that the program would have written anyway.

use std::{
    env,
    ffi::OsStr,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
};

use crate::{
    error::{Context, Error, Result},
    output::invoker::Invoker,
    proc, tls_keys,
    user::Account,
};

/// Whether the program can have a key log of its own.
pub(super) fn check() -> Result<()> {
    let mounts = proc::mounts().context("read", "the list of mounts")?;
    if !mounts.lines().any(|mount| mount.split(' ').nth(4) == Some("/")) {
        return Err(Error::told(
            "--tls-keys needs a mount of its own for the program, and the root of this chroot is no mount point: \
             bind it to itself with 'mount --bind'",
        ));
    }
    Ok(())
}

/// The file that the variable of the program names already, opened as the program would.
pub(super) fn open(account: Option<&Account>) -> Result<Option<File>> {
    check()?;
    let Some(path) = env::var_os(tls_keys::VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let open = || append_to(&path);
    let opened = account.map_or_else(open, |account| Invoker::of(account).act(open));
    opened.map(Some).context("open", format_args!("{} of {}", path.display(), tls_keys::VARIABLE))
}

/// Nobody waits for the reader of a pipe.
fn append_to(path: &OsStr) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK).open(path)
}
