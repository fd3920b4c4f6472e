//! Many traces for a long time; no test, for it ends with the time.

use anyhow::Result;

use crate::{
    setup,
    shell::{cargo, root, run},
    test::{build, on_the_lab},
};

/// Builds what is to be tried, and tries it for so many minutes.
///
/// # Errors
/// Where nothing can be tried here, or something was found.
pub fn soak(minutes: u64, seed: Option<u64>) -> Result<()> {
    setup::for_soak()?;
    build()?;
    run(&mut cargo(&["build", "--quiet", "--release", "--package", "nsntrace-tests", "--bins"]))?;
    let mut soak = on_the_lab(&root().join("target/release/soak"));
    run(soak.arg(minutes.to_string()).args(seed.map(|seed| seed.to_string())))
}
