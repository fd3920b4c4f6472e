//! Debian's kernels: fetched once, kept in the target directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::Apt;
use crate::shell::stdout;

/// The cloud flavour has virtiofs and all that nsntrace uses, in a third of the modules of the generic one.
const METAPACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel that can be booted.
pub struct Kernel {
    /// As `uname -r` says it: "6.1.0-50-cloud-amd64".
    pub release: String,
    folder: PathBuf,
    /// Locked: the folder has one user at a time.
    _lock: File,
}

/// What became of a wish for a kernel.
pub enum Fetched {
    /// It is here.
    Ready(Kernel),
    /// Debian no longer offers it, for the reason given in one line.
    Unavailable(String),
}

impl Kernel {
    /// The compressed kernel.
    pub fn image(&self) -> PathBuf {
        self.folder.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The modules, uncompressed and indexed: what belongs at `/lib/modules/RELEASE`.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release)
    }

    /// An empty folder `name` beside the kernel.
    pub fn fresh_dir(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        remove(&folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}

/// Puts Linux `version` ("5.10", "6.1" or "6.12") into a folder below `cache` unless it is there already.
///
/// It is the newest of that series in Debian at the time of the first call; remove the folder to get a newer one.
pub fn fetch(version: &str, cache: &Path) -> Result<Fetched> {
    let codename = codename(version)?;
    let folder = std::path::absolute(cache.join(version)).context("cannot tell the working directory")?;
    let lock = locked(&folder.with_added_extension("lock"))?;
    let note = folder.join("release");
    if !note.exists()
        && let Some(reason) = download(version, codename, &folder)?
    {
        return unavailable(version, reason);
    }
    let release = fs::read_to_string(&note).with_context(|| format!("cannot read {}", note.display()))?;
    Ok(Fetched::Ready(Kernel { release, folder, _lock: lock }))
}

/// Fills `folder`. What it returns is why Debian no longer has the kernel, if so.
fn download(version: &str, codename: &str, folder: &Path) -> Result<Option<String>> {
    remove(folder)?;
    let apt = Apt::new(folder.join("apt"), codename)?;
    if !apt.update()? {
        return Ok(Some(format!("the archive no longer has Debian {codename}")));
    }
    let Some(package) = apt.dependency(METAPACKAGE, &format!("linux-image-{version}."))? else {
        return Ok(Some(format!("Debian {codename} has no {METAPACKAGE} of Linux {version}")));
    };
    apt.unpack(&package, folder)?;
    let release = package.trim_start_matches("linux-image-");
    prepare_modules(folder, release)?;
    remove(&folder.join("apt"))?;
    // The last to be written: a fetch that was cut short starts anew.
    fs::write(folder.join("release"), release).context("cannot note the kernel's release")?;
    Ok(None)
}

fn locked(path: &Path) -> Result<File> {
    fs::create_dir_all(path.parent().unwrap_or(path))
        .and_then(|()| File::create(path))
        .and_then(|file| file.lock().map(|()| file))
        .with_context(|| format!("cannot lock {}", path.display()))
}

/// The Debian release whose own kernel is of that series.
fn codename(version: &str) -> Result<&'static str> {
    Ok(match version {
        "5.10" => "bullseye",
        "6.1" => "bookworm",
        "6.12" => "trixie",
        _ => {
            bail!("no Debian release is known for Linux {version}: use one of {}", super::VERSIONS.join(", "))
        }
    })
}

/// Debian drops a release from its archive after some years. Only the oldest may be missed.
fn unavailable(version: &str, reason: String) -> Result<Fetched> {
    if version == super::VERSIONS[0] { Ok(Fetched::Unavailable(reason)) } else { bail!(reason) }
}

/// Brings the modules of all packages into one form: at /lib, uncompressed (an emulator is slow at that), indexed.
fn prepare_modules(folder: &Path, release: &str) -> Result<()> {
    // Since Debian 13 they are at /usr/lib.
    if folder.join("usr/lib/modules").exists() {
        fs::rename(folder.join("usr/lib"), folder.join("lib")).context("cannot move the modules")?;
    }
    let modules = folder.join("lib/modules").join(release);
    let unpack = "find \"$1\" -name '*.ko.xz' -exec /bin/busybox unxz {} +";
    stdout(Command::new("sh").args(["-c", unpack, "sh"]).arg(&modules))?;
    stdout(Command::new("/bin/busybox").args(["depmod", "-b"]).arg(folder).arg(release))?;
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
