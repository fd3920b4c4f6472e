//! The pipe that the trace goes into: made by who reads it, opened as that user, and stdout from then on.

use std::{
    fs::File,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use nix::unistd::{dup2_stdin, dup2_stdout};

use crate::error::{Context, Error, Result};

/// Waits for the reader, and makes the pipe stdout. Nothing is left to read on stdin: Wireshark has closed that already.
///
/// The file is never made: it would be an ordinary one, and nobody would read it.
///
/// # Errors
/// Where there is no such pipe, or somebody else's.
pub fn become_stdout(path: Option<&Path>) -> Result<()> {
    let path = path.ok_or_else(|| Error::told("--capture writes to a pipe: name it with --fifo"))?;
    // A device might do something when it is opened.
    if path.symlink_metadata().is_ok_and(|found| !found.file_type().is_fifo()) {
        return Err(Error::told(format!("--fifo {}: it is no pipe", path.display())));
    }
    let fifo = File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(path);
    dup2_stdout(fifo.context("open", format_args!("the pipe {}", path.display()))?)
        .context("replace", "stdout")?;
    let nothing = File::open("/dev/null").context("open", "/dev/null")?;
    dup2_stdin(nothing).context("replace", "stdin")
}
