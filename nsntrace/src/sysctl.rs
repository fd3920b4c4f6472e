//! Settings below /proc/sys/net, in the network namespace of the calling thread.

use std::{fs, io, path::Path};

use crate::error::{Context, Result};

/// Writes one setting, such as `ipv4/ip_forward`.
///
/// # Errors
/// What the kernel answers.
pub fn set(name: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys/net").join(name), value)
}

/// Reads one setting, without its line's end.
///
/// # Errors
/// What the kernel answers.
pub fn get(name: &str) -> io::Result<String> {
    let value = fs::read_to_string(Path::new("/proc/sys/net").join(name))?;
    Ok(value.trim_end().to_owned())
}

/// Whether a switch is on.
///
/// # Errors
/// Where there is no such setting.
pub fn is_on(name: &str) -> Result<bool> {
    let value = get(name).context("read", format_args!("the setting {name}"))?;
    Ok(value != "0")
}

/// Whether there is such a setting: those of a device go away with it.
pub fn is_there(name: &str) -> bool {
    Path::new("/proc/sys/net").join(name).exists()
}
