//! From what the user calls a cgroup to its folder.

use std::path::{Path, PathBuf};

use nix::{
    errno::Errno,
    sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs},
};

use super::{below, mount};
use crate::{
    error::{Context, Error, Result},
    words::plain,
};

/// The folder of a cgroup: by its path, by its path below the mount of cgroup2, or by the name of its folder, as a unit
/// of systemd has one, wherever that is.
///
/// # Errors
/// Where there is no such cgroup, or more than one, or it is of version 1.
pub fn find(name: &Path) -> Result<PathBuf> {
    let shown = plain(&name.display().to_string());
    let mount = mount()?;
    let relative = name.strip_prefix("/").unwrap_or(name);
    if name.is_absolute() && name.exists() {
        return of_version_2(name, &mount);
    }
    // What the kernel and systemd show of a cgroup begins with a slash too, and counts from the mount.
    let path = mount.join(relative);
    if path.exists() {
        return of_version_2(&path, &mount);
    }
    let is_unit = relative.components().count() == 1 && !name.is_absolute();
    let mut found = if is_unit { below(&mount) } else { Vec::new() };
    found.retain(|path| path.file_name() == Some(relative.as_os_str()));
    match &found[..] {
        [] => Err(Error::told(format!(
            "there is no cgroup '{shown}': neither this path nor one below {}{}",
            mount.display(),
            if is_unit { ", nor a unit of this name" } else { "" }
        ))),
        [path] => of_version_2(path, &mount),
        several => {
            let paths: Vec<_> = several.iter().map(|path| plain(&path.display().to_string())).collect();
            Err(Error::told(format!(
                "several cgroups are called '{shown}': name one by its path: {}",
                paths.join(", ")
            )))
        }
    }
}

/// The path without detours, if a cgroup of version 2 is there.
fn of_version_2(path: &Path, mount: &Path) -> Result<PathBuf> {
    let shown = plain(&path.display().to_string());
    let kind = match statfs(path) {
        Err(Errno::ENOTDIR) => None,
        result => Some(result.context("look at", &shown)?.filesystem_type()),
    };
    match kind {
        Some(CGROUP2_SUPER_MAGIC) if path.is_dir() => path.canonicalize().context("look at", shown),
        Some(CGROUP_SUPER_MAGIC) => Err(Error::told(format!(
            "{shown} is a cgroup of version 1, which does not tell whose a packet is: name one below {}",
            mount.display()
        ))),
        _ => Err(Error::told(format!("{shown} is no cgroup: name one below {}", mount.display()))),
    }
}
