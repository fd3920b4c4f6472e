//! Measurements; none of them is a test.

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    setup,
    shell::{cargo, root, run},
    test::{build, on_the_lab},
};

/// Builds what is to be measured, and measures what the arguments say.
///
/// # Errors
/// Where nothing can be measured here.
pub fn bench(arguments: &[OsString]) -> Result<()> {
    setup::for_tests()?;
    build()?;
    run(&mut cargo(&["build", "--quiet", "--release", "--package", "nsntrace-tests", "--bins"]))?;
    let mut bench = on_the_lab(&root().join("target/release/bench"));
    run(bench.args(arguments))
}
