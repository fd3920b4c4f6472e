//! What users get: a package for Debian and its kin, and an archive of the same files for others.

mod archive;
mod bash;
mod completions;
mod libraries;
mod man;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::{Arg, CommandFactory, ValueHint};

use crate::{
    setup,
    shell::{root, run, stdout},
    test::build,
};

// Not by way of the library: all that it needs would be built for xtask too.
#[path = "../../nsntrace/src/cli.rs"]
#[expect(dead_code, reason = "nothing is parsed here")]
mod cli;

/// The version of the workspace, xtask's own with the others'.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds the packages into `target/dist`, with a file of their checksums.
///
/// # Errors
/// Where something cannot be built.
pub fn dist() -> Result<()> {
    setup::to_package()?;
    build()?;
    let folder = root().join("target/dist");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("cannot empty target/dist")?;
    }
    let time = source_time()?;
    documents(&folder.join("files"), time)?;
    let package = package(&folder, time)?;
    let archive = archive::archive(&folder, &package, time)?;
    checksums(&folder, &[&package, &archive])
}

/// Seconds since 1970 that files are given: those of the commit, or $SOURCE_DATE_EPOCH, so that the
/// packages do not tell when they were built.
fn source_time() -> Result<u64> {
    let time = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(time) => time,
        Err(_) => stdout(Command::new("git").args(["log", "-1", "--format=%ct"]))
            .context("no commit tells the time; set SOURCE_DATE_EPOCH")?,
    };
    time.trim_end().parse().with_context(|| format!("{time:?} is no time in seconds"))
}

/// All that nsntrace/Cargo.toml wants for the package beside what is in the repository.
fn documents(folder: &Path, time: u64) -> Result<()> {
    fs::create_dir_all(folder)?;
    let command = command_line();
    let files = [
        ("nsntrace.1", man::page(command.clone(), &date(time, "+%F")?)?),
        ("nsntrace.bash", bash::completion(&command)),
        ("_nsntrace", completions::zsh(&command)?),
        ("nsntrace.fish", completions::fish(&command)?),
        ("libraries.txt", libraries::licences()?),
        ("changelog.Debian", changelog(&date(time, "+%a, %d %b %Y %T %z")?)),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

/// nsntrace's command line. A value that is no file, and says nothing else, is offered nothing.
fn command_line() -> clap::Command {
    let mut command = cli::Cli::command().bin_name("nsntrace");
    command.build();
    let is_unknown =
        |option: &Arg| option.get_action().takes_values() && option.get_value_hint() == ValueHint::Unknown;
    command.mut_args(|option| if is_unknown(&option) { option.value_hint(ValueHint::Other) } else { option })
}

fn date(time: u64, format: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["--utc", &format!("--date=@{time}"), format]);
    Ok(stdout(&mut date)?.trim_end().to_owned())
}

/// Debian's own, beside ours.
fn changelog(date: &str) -> String {
    format!(
        "nsntrace ({VERSION}-1) unstable; urgency=medium\n\n  \
         * What has changed is told in /usr/share/doc/nsntrace/changelog.gz.\n\n \
         -- The nsntrace maintainers <maintainers@nsntrace.invalid>  {date}\n"
    )
}

/// The package, by nsntrace/Cargo.toml. Returns where it is.
fn package(folder: &Path, time: u64) -> Result<PathBuf> {
    let mut deb = Command::new(setup::cargo_deb()?);
    deb.args(["--quiet", "--locked", "--no-build", "--strip", "--package", "nsntrace"]);
    // What is for /usr/lib goes into the folder of the architecture there; and a command is the same to all of them.
    deb.arg("--multiarch=foreign").arg("--output").arg(folder);
    run(deb.env("CARGO_TARGET_DIR", root().join("target")).env("SOURCE_DATE_EPOCH", time.to_string()))?;
    let files = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut paths = files.into_iter().map(|file| file.path());
    paths.find(|path| path.extension().is_some_and(|kind| kind == "deb")).context("cargo-deb made no package")
}

/// In the format of sha256sum, which checks them with `-c`.
fn checksums(folder: &Path, files: &[&Path]) -> Result<()> {
    let names = files.iter().filter_map(|file| file.file_name());
    let sums = stdout(Command::new("sha256sum").args(names).current_dir(folder))?;
    print!("{sums}");
    fs::write(folder.join("SHA256SUMS"), sums).context("cannot write SHA256SUMS")
}
