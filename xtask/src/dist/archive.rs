//! An archive of the package's files, for hosts that have other packages: it is unpacked into /usr/local, or anywhere.

use std::{
    env::consts::{ARCH, OS},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::VERSION;
use crate::shell::{root, run};

/// Packs what is in the package. Returns where the archive is.
///
/// # Errors
/// Where it cannot be unpacked or packed.
pub fn archive(folder: &Path, package: &Path, time: u64) -> Result<PathBuf> {
    let name = format!("nsntrace-{VERSION}-{ARCH}-{OS}");
    let unpacked = folder.join("files/package");
    run(Command::new("dpkg-deb").arg("-x").args([package, &unpacked]))?;
    let tree = folder.join("files").join(&name);
    fs::rename(unpacked.join("usr"), &tree).context("the package has no usr")?;
    // What is Debian's alone: its Wireshark looks into no other folders than these.
    for folder in ["lib", "libexec"] {
        fs::remove_dir_all(tree.join(folder)).with_context(|| format!("the package has no {folder}"))?;
    }
    fs::rename(tree.join("share/zsh/vendor-completions"), tree.join("share/zsh/site-functions"))?;
    let documents = tree.join("share/doc/nsntrace");
    for file in ["changelog.Debian.gz", "changelog.gz", "copyright"] {
        fs::remove_file(documents.join(file)).with_context(|| format!("the package has no {file}"))?;
    }
    for file in ["CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        fs::copy(root().join(file), documents.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    let archive = folder.join(name.clone() + ".tar.gz");
    let mut tar = Command::new("tar");
    // The same whoever packs it, and whenever.
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"]);
    tar.arg(format!("--mtime=@{time}"));
    tar.args(["--use-compress-program=gzip -9n", "--create", "--file"]).arg(&archive);
    run(tar.arg("--directory").arg(folder.join("files")).arg(&name))?;
    Ok(archive)
}
