//! Programs from crates.io that some tasks need, in the target folder.

use std::{fs, path::PathBuf};

use anyhow::Result;

use crate::shell::{cargo, root, run};

/// The path of a program, which is built there, with these options of cargo's, if it is not there in that version.
///
/// # Errors
/// Where it cannot be built.
pub fn installed(name: &str, version: &str, options: &[&str]) -> Result<PathBuf> {
    let folder = root().join("target/tools").join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    if !program.exists() {
        println!("setup: building {name} {version}");
        let mut install = cargo(&["install", "--quiet", "--locked", "--version", version, name]);
        // What they have left to do is little: that they are built soon is what counts.
        install.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "none").args(options);
        run(install.arg("--root").arg(&folder).arg("--target-dir").arg(folder.join("build")))?;
        // It is needed once, and can be half a gigabyte.
        fs::remove_dir_all(folder.join("build"))?;
    }
    Ok(program)
}
