//! Bytes that nobody would send, for the readers of them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    setup,
    shell::{root, run},
    tool,
};

const CARGO_FUZZ: &str = "0.13.1";

/// Slower is a finding, in seconds.
const LONGEST: &str = "-timeout=5";

/// The corpus is in the repository, and is to stay small: in bytes.
const LONGEST_KEPT: &str = "-max_len=600";

/// What is compiled with the sanitizer is for this platform, and the toolchain is a stable one.
const UNSTABLE: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

/// Runs one target, or each of them, for so many seconds. What it finds new goes into the corpus; what fails stops it.
///
/// # Errors
/// Where there is no such target, it cannot be built, or it fails.
pub fn fuzz(target: Option<&str>, seconds: u64) -> Result<()> {
    setup::to_fuzz()?;
    let all = targets()?;
    if let Some(target) = target.filter(|target| !all.iter().any(|one| one == target)) {
        bail!("there is no target {target}: there are {}", all.join(", "));
    }
    for name in all.iter().filter(|name| target.is_none_or(|target| target == *name)) {
        println!("== {name}");
        let time = format!("-max_total_time={seconds}");
        run(cargo_fuzz()?.args(["run", name, "--", &time, LONGEST, "-print_final_stats=1"]))?;
    }
    Ok(())
}

/// Keeps of a target's corpus what reaches something that nothing smaller does.
///
/// # Errors
/// As [`fuzz`].
pub fn minimise(target: &str) -> Result<()> {
    let corpus = Path::new("fuzz/corpus").join(target);
    let kept = root().join("target/fuzz/kept");
    // A merge into what is there already keeps that.
    let _ = fs::remove_dir_all(&kept);
    fs::create_dir_all(&kept)?;
    let folders = [kept.as_path(), &corpus];
    run(cargo_fuzz()?.args(["run", target]).args(folders).args(["--", "-set_cover_merge=1", LONGEST_KEPT]))?;
    fs::remove_dir_all(&corpus)?;
    fs::create_dir(&corpus)?;
    for file in fs::read_dir(&kept)? {
        let file = file?;
        fs::copy(file.path(), corpus.join(file.file_name()))?;
    }
    Ok(())
}

fn cargo_fuzz() -> Result<Command> {
    let program = tool::installed("cargo-fuzz", CARGO_FUZZ, &[])?;
    let mut command = Command::new(program);
    command
        .env(UNSTABLE.0, UNSTABLE.1)
        .env("CARGO_TARGET_DIR", root().join("target/fuzz"))
        .current_dir(root());
    Ok(command)
}

fn targets() -> Result<Vec<String>> {
    let folder = Path::new("fuzz/fuzz_targets");
    let files = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let name = |file: fs::DirEntry| Some(file.path().file_stem()?.to_str()?.to_owned());
    let mut names: Vec<_> = files.flatten().filter_map(name).collect();
    names.sort_unstable();
    Ok(names)
}
