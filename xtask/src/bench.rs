//! Measurements; none of them is a test.

use std::ffi::OsString;

use anyhow::Result;

use crate::{setup, shell::run, test::program_of_the_lab};

/// Builds what is to be measured, and measures what the arguments say.
///
/// # Errors
/// Where nothing can be measured here.
pub fn bench(arguments: &[OsString]) -> Result<()> {
    setup::for_tests()?;
    run(program_of_the_lab("bench")?.args(arguments))
}
