//! Everything that must hold before a change lands.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    ebpf, setup,
    shell::{as_root, is_root, root, run, stdout},
    vm,
};

/// Sets up, then runs every check and test, or only the tests whose names contain `filter`.
///
/// # Errors
/// The first that fails.
pub fn all(filter: Option<&str>) -> Result<()> {
    setup::for_tests()?;
    if filter.is_none() {
        step("format", cargo(&["fmt", "--all", "--check"]))?;
        step(
            "clippy",
            cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
        )?;
        println!("== the eBPF object is what the source yields");
        ebpf::check()?;
    }
    step("build", cargo(&BUILD))?;
    let mut unit = cargo(&[
        "test",
        "--quiet",
        "--package",
        "nsntrace",
        "--package",
        "nsntrace-ebpf",
        "--package",
        "xtask",
    ]);
    step("unit tests", with(&mut unit, filter))?;
    end_to_end(filter)?;
    if filter.is_none() {
        println!("== older kernels");
        run(as_root_again()?.args(["vm", "6.1", "5.10"]))?;
    }
    Ok(())
}

/// Traces a download under each of these kernels, or under all that are known; or runs end-to-end tests there.
///
/// # Errors
/// Where one of them cannot be had, the trace is not right, or a test fails.
pub fn under_kernels(versions: &[String], tests: Option<&str>) -> Result<()> {
    setup::for_tests()?;
    let target = root().join("target");
    let binary = target.join("release/nsntrace");
    if !is_root() || !binary.exists() {
        run(&mut cargo(&BUILD))?;
    }
    if !is_root() {
        let tests = tests.map(|filter| format!("--tests={filter}"));
        return run(as_root_again()?.arg("vm").args(tests).args(versions));
    }
    match tests {
        None => vm::vm(versions, &target, &binary),
        Some(filter) => vm::run_tests(versions, &target, &binary, &suite()?, &[filter.to_owned()]),
    }
}

/// The executable of the end-to-end tests, built now.
fn suite() -> Result<PathBuf> {
    let mut build =
        cargo(&["test", "--quiet", "--release", "--package", "nsntrace-tests", "--test", "e2e", "--no-run"]);
    let messages = stdout(build.args(["--message-format", "json"]))?;
    let path = messages.lines().filter_map(|line| line.split_once("\"executable\":\"")).next_back();
    let path = path.and_then(|(_, rest)| rest.split('"').next()).context("cargo names no test executable")?;
    Ok(path.into())
}

/// How the binary under test is built.
const BUILD: [&str; 5] = ["build", "--quiet", "--release", "--package", "nsntrace"];

fn as_root_again() -> Result<Command> {
    let own = std::env::current_exe()?;
    Ok(as_root(&own.to_string_lossy()))
}

/// As root, since they make namespaces.
fn end_to_end(filter: Option<&str>) -> Result<()> {
    let build = cargo(&["build", "--quiet", "--release", "--package", "nsntrace-tests", "--all-targets"]);
    step("end-to-end tests", build)?;
    let mut suite = as_root("env");
    suite.arg(format!("NSNTRACE={}", root().join("target/release/nsntrace").display()));
    suite.args(["cargo", "test", "--quiet", "--release", "--package", "nsntrace-tests"]);
    run(with(&mut suite, filter))
}

fn with<'a>(command: &'a mut Command, filter: Option<&str>) -> &'a mut Command {
    command.arg("--").args(filter)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments);
    command
}

fn step(name: &str, mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    println!("== {name}");
    run(command.borrow_mut())
}
