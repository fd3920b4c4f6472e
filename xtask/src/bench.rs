//! Measurements; none of them is a test.

use anyhow::Result;

use crate::{
    setup,
    shell::{cargo, root, run},
    test::{build, on_the_lab},
};

/// Builds what is to be measured, and measures one part of it.
///
/// # Errors
/// Where nothing can be measured here.
pub fn bench(part: &str, rounds: Option<usize>) -> Result<()> {
    setup::for_tests()?;
    build()?;
    run(&mut cargo(&["build", "--quiet", "--release", "--package", "nsntrace-tests", "--bins"]))?;
    let mut bench = on_the_lab(&root().join("target/release/bench"));
    run(bench.arg(part).args(rounds.map(|rounds| rounds.to_string())))
}
