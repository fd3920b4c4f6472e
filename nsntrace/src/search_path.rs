//! Where programs are looked for: PATH, as a shell has it.

use std::{env, ffi::OsStr, path::PathBuf};

/// Where a program of this name may be, in that order.
pub fn places(program: impl AsRef<OsStr>) -> Vec<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    env::split_paths(&folders).map(|folder| folder.join(program.as_ref())).collect()
}
