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
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::shell::quoted;
use guest::Guest;
use kernel::{Fetched, fetch};

/// The kernels that are tried when the user names none.
pub const VERSIONS: [&str; 3] = ["5.10", "6.1", "6.12"];

const MEMORY_MIB: u32 = 1024;
const SCENARIO_LIMIT: Duration = Duration::from_secs(180);
const TESTS_LIMIT: Duration = Duration::from_secs(45 * 60);

/// Traces a download under each of `versions` (all of [`VERSIONS`] if empty) and prints one line for each.
///
/// `target` is the workspace's target directory: kernels are kept in `vm/` below it. `nsntrace` is the binary under
/// test. A kernel that Debian no longer offers is skipped, with a line that says so; all others are tried before a
/// failure of one of them is returned.
pub fn vm(versions: &[String], target: &Path, nsntrace: &Path) -> Result<()> {
    let nsntrace = absolute(nsntrace)?;
    let mut failed = Vec::new();
    for version in chosen(versions) {
        match traced(version, target, &nsntrace) {
            Ok(line) => println!("{line}"),
            Err(error) => {
                println!("{version}: FAILED: {error:#}");
                failed.push(version);
            }
        }
    }
    if !failed.is_empty() {
        bail!("the trace failed under Linux {}", failed.join(", "));
    }
    Ok(())
}

/// Runs the test executable `binary` with `args` under each of `versions` (all of [`VERSIONS`] if empty), in the same
/// working directory and with the path of `nsntrace` in the variable `NSNTRACE`. What it prints appears at once.
pub fn run_tests(
    versions: &[String],
    target: &Path,
    nsntrace: &Path,
    binary: &Path,
    args: &[String],
) -> Result<()> {
    let command = test_command(&absolute(nsntrace)?, &absolute(binary)?, args)?;
    for version in chosen(versions) {
        println!("== Linux {version}");
        let kernel = match fetch(version, &target.join("vm"))? {
            Fetched::Ready(kernel) => kernel,
            Fetched::Unavailable(reason) => {
                println!("{version}: SKIPPED: {reason}");
                continue;
            }
        };
        let guest = Guest { kernel: &kernel, memory_mib: MEMORY_MIB, time_limit: TESTS_LIMIT, live: true };
        let status = guest.run(&command, &kernel.fresh_dir("exchange")?)?.status;
        ensure!(status == 0, "the tests ended with status {status} under Linux {version}");
    }
    Ok(())
}

fn chosen(versions: &[String]) -> Vec<&str> {
    if versions.is_empty() { VERSIONS.to_vec() } else { versions.iter().map(String::as_str).collect() }
}

fn traced(version: &str, target: &Path, nsntrace: &Path) -> Result<String> {
    let kernel = match fetch(version, &target.join("vm"))? {
        Fetched::Ready(kernel) => kernel,
        Fetched::Unavailable(reason) => return Ok(format!("{version}: SKIPPED: {reason}")),
    };
    let guest = Guest { kernel: &kernel, memory_mib: MEMORY_MIB, time_limit: SCENARIO_LIMIT, live: false };
    let verdict = scenario::run(&guest, nsntrace)?;
    Ok(format!("{}: ok: {verdict}", kernel.release))
}

fn test_command(nsntrace: &Path, binary: &Path, args: &[String]) -> Result<String> {
    let folder = std::env::current_dir().context("cannot tell the working directory")?;
    let mut command =
        format!("cd {} && NSNTRACE={} exec {}", quoted(&folder), quoted(nsntrace), quoted(binary));
    for word in args {
        command.push(' ');
        command.push_str(&quoted(word.as_ref()));
    }
    Ok(command)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("no such program: {}", path.display()))
}
