//! Everything that must hold before a change lands.

use std::process::Command;

use anyhow::Result;

use crate::{
    ebpf, setup,
    shell::{as_root, root, run},
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
    step("build", cargo(&["build", "--quiet", "--release", "--package", "nsntrace"]))?;
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
    end_to_end(filter)
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
