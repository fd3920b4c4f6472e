//! Everything that must hold before a change lands.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    dist, ebpf, setup,
    shell::{as_root, cargo, is_root, root, run, stdout},
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
            cargo(&[
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--features=nsntrace/fuzzing",
                "--",
                "--deny",
                "warnings",
            ]),
        )?;
        ebpf::lint()?;
        let documents = ["doc", "--quiet", "--no-deps", "--workspace"];
        step("documentation", cargo(&documents).env("RUSTDOCFLAGS", "--deny warnings"))?;
        other_processors()?;
        println!("== the eBPF object is what the source yields");
        ebpf::check()?;
    }
    println!("== packages");
    dist::dist()?;
    // Of the whole workspace, as all that is built for tests: with other features, what is shared is built again.
    step("unit tests", with(&mut cargo(&["test", "--quiet", "--workspace", "--lib", "--bins"]), filter))?;
    step(
        "examples in the documentation",
        with(&mut cargo(&["test", "--quiet", "--workspace", "--doc"]), filter),
    )?;
    end_to_end(filter)?;
    if filter.is_none() {
        println!("== older kernels");
        run(as_root_again()?.args(["vm", "--built", "6.1", "5.10"]))?;
        // What a new verifier takes an old one may refuse.
        run(as_root_again()?.args(["vm", "--built", "--tests=filter::verifier", "6.1", "5.10"]))?;
    }
    Ok(())
}

/// Nothing may count on x86.
fn other_processors() -> Result<()> {
    let target = "aarch64-unknown-linux-gnu";
    if !setup::target(target)? {
        println!("== {target} SKIPPED: the toolchain's library for it cannot be had");
        return Ok(());
    }
    let check = ["check", "--quiet", "--package=nsntrace", "--package=nsntrace-tests", "--target", target];
    step(target, cargo(&check).env("RUSTFLAGS", "--deny warnings"))
}

/// Traces a download under each of these kernels, or under all that are known; or runs end-to-end tests there.
///
/// # Errors
/// Where one of them cannot be had, the trace is not right, or a test fails.
pub fn under_kernels(versions: &[String], tests: Option<&str>, built: bool) -> Result<()> {
    setup::for_tests()?;
    let target = root().join("target");
    let binary = target.join("release/nsntrace");
    if !built {
        build()?;
    }
    if !is_root() {
        let tests = tests.map(|filter| format!("--tests={filter}"));
        return run(as_root_again()?.args(["vm", "--built"]).args(tests).args(versions));
    }
    match tests {
        None => vm::vm(versions, &target, &binary),
        Some(filter) => vm::run_tests(versions, &target, &binary, &suite()?, &[filter.to_owned()]),
    }
}

/// The executable of the end-to-end tests, built now.
fn suite() -> Result<PathBuf> {
    let mut build = cargo(&["test", "--quiet", "--workspace", "--test", "e2e", "--no-run"]);
    let messages = stdout(build.args(["--message-format", "json"]))?;
    // There are lines for what it needs too, in any order.
    let suite = messages.lines().filter(|line| line.contains("\"name\":\"e2e\""));
    let path = suite.filter_map(|line| line.split_once("\"executable\":\"")).next_back();
    let path = path.and_then(|(_, rest)| rest.split('"').next()).context("cargo names no test executable")?;
    Ok(path.into())
}

/// Builds the binary under test.
///
/// # Errors
/// Where it cannot be built.
pub fn build() -> Result<()> {
    run(&mut cargo(&["build", "--quiet", "--release", "--package", "nsntrace"]))
}

fn as_root_again() -> Result<Command> {
    Ok(as_root(std::env::current_exe()?))
}

/// As root, since they make namespaces.
fn end_to_end(filter: Option<&str>) -> Result<()> {
    println!("== end-to-end tests");
    let mut suite = on_the_lab(&suite()?);
    run(suite.args(filter))
}

/// A program of the tests' crate by its name, built now like the binary that it tries or measures.
///
/// # Errors
/// Where one of them cannot be built.
pub fn program_of_the_lab(name: &str) -> Result<Command> {
    build()?;
    run(&mut cargo(&["build", "--quiet", "--release", "--package", "nsntrace-tests", "--bins"]))?;
    Ok(on_the_lab(&root().join("target/release").join(name)))
}

/// A program of the tests' crate, as root and with the binary under test.
fn on_the_lab(program: &Path) -> Command {
    let mut command = as_root("env");
    command.arg(format!("NSNTRACE={}", root().join("target/release/nsntrace").display()));
    command.arg(program);
    command
}

fn with<'a>(command: &'a mut Command, filter: Option<&str>) -> &'a mut Command {
    command.arg("--").args(filter)
}

fn step(name: &str, mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    println!("== {name}");
    run(command.borrow_mut())
}
