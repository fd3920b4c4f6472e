//! Runs nsntrace under older kernels: Debian's own, booted by qemu with this machine's root file system.
//!
//! The guest sees the whole root file system of the host through virtiofs. It is read-only; a tmpfs above it takes
//! what the guest writes. So each tool and each test binary of the host is there under its own path, and nothing has
//! to be packed. There is no network card: traffic stays in namespaces of the guest.
//!
//! It needs root and the packages qemu-system-x86 (with virtiofsd) and busybox-static.

mod apt;
mod guest;
mod initramfs;
mod kernel;
mod scenario;
mod share;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::shell::quoted;
use guest::Guest;
use kernel::{Fetched, Kernel, fetch};

/// The kernels that are tried when the user names none.
pub const VERSIONS: [&str; 3] = ["5.10", "6.1", "6.12"];

const MEMORY_MIB: u32 = 1024;
const SCENARIO_LIMIT: Duration = Duration::from_secs(180);
const TESTS_LIMIT: Duration = Duration::from_secs(45 * 60);

/// An emulated processor takes some ten times as long, and tests wait accordingly.
const SLOW: &str = "NSNTRACE_TESTS_PATIENCE=10";

/// Traces a download under each of `versions` (all of [`VERSIONS`] if empty) and prints one line for each.
///
/// `target` is the workspace's target directory: kernels are kept in `vm/` below it. `nsntrace` is the binary under
/// test. A kernel that Debian no longer offers is skipped, with a line that says so; all are tried, at the same time,
/// before a failure of one of them is returned.
pub fn vm(versions: &[String], target: &Path, nsntrace: &Path) -> Result<()> {
    let nsntrace = absolute(nsntrace)?;
    under_each(versions, target, |_, kernel| {
        let guest = Guest { kernel, memory_mib: MEMORY_MIB, time_limit: SCENARIO_LIMIT, shown_after: None };
        Ok(format!("{}: ok: {}", kernel.release, scenario::run(&guest, &nsntrace)?))
    })
}

/// Runs the test executable `binary` with `args` under each of `versions` (all of [`VERSIONS`] if empty), in the same
/// working directory and with the path of `nsntrace` in the variable `NSNTRACE`. What it prints appears at once, each
/// line after the version.
pub fn run_tests(
    versions: &[String],
    target: &Path,
    nsntrace: &Path,
    binary: &Path,
    args: &[String],
) -> Result<()> {
    let command = test_command(&absolute(nsntrace)?, &absolute(binary)?, args)?;
    under_each(versions, target, |version, kernel| {
        let shown_after = Some(version);
        let guest = Guest { kernel, memory_mib: MEMORY_MIB, time_limit: TESTS_LIMIT, shown_after };
        let result = guest.run(&command, &kernel.fresh_dir("exchange")?)?;
        ensure!(result.status == 0, "the tests ended with status {}", result.status);
        Ok(format!("{}: ok: {} s", kernel.release, result.elapsed.as_secs()))
    })
}

/// Does one thing under all of the kernels at the same time, for an emulated machine hardly uses more than one core, and
/// prints what comes of it.
fn under_each(
    versions: &[String],
    target: &Path,
    work: impl Fn(&str, &Kernel) -> Result<String> + Sync,
) -> Result<()> {
    let cache = target.join("vm");
    let under = |version| match fetch(version, &cache)? {
        Fetched::Ready(kernel) => work(version, &kernel),
        Fetched::Unavailable(reason) => Ok(format!("{version}: SKIPPED: {reason}")),
    };
    let succeeded = |version| {
        let result: Result<String> = under(version);
        match &result {
            Ok(line) => println!("{line}"),
            Err(error) => println!("{version}: FAILED: {error:#}"),
        }
        result.is_ok()
    };
    let failed: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = chosen(versions)
            .into_iter()
            .map(|version| (version, scope.spawn(move || succeeded(version))))
            .collect();
        let failed = running
            .into_iter()
            .filter_map(|(version, thread)| (!thread.join().unwrap_or(false)).then_some(version));
        failed.collect()
    });
    ensure!(failed.is_empty(), "it failed under Linux {}", failed.join(", "));
    Ok(())
}

fn chosen(versions: &[String]) -> Vec<&str> {
    if versions.is_empty() { VERSIONS.to_vec() } else { versions.iter().map(String::as_str).collect() }
}

fn test_command(nsntrace: &Path, binary: &Path, args: &[String]) -> Result<String> {
    let folder = std::env::current_dir().context("cannot tell the working directory")?;
    let mut command =
        format!("cd {} && {SLOW} NSNTRACE={} exec {}", quoted(&folder), quoted(nsntrace), quoted(binary));
    for word in args {
        command.push(' ');
        command.push_str(&quoted(word.as_ref()));
    }
    Ok(command)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("no such program: {}", path.display()))
}
