//! Many traces for a long time; no test, for it ends with the time.

use anyhow::Result;

use crate::{setup, shell::run, test::program_of_the_lab};

/// Builds what is to be tried, and tries it for so many minutes.
///
/// # Errors
/// Where nothing can be tried here, or something was found.
pub fn soak(minutes: u64, seed: Option<u64>) -> Result<()> {
    setup::for_soak()?;
    run(program_of_the_lab("soak")?.arg(minutes.to_string()).args(seed.map(|seed| seed.to_string())))
}
