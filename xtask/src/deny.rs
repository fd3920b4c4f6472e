//! What is built in: its licences, its sources, what is there twice, and what is known against it.

use std::process::Command;

use anyhow::Result;

use crate::{
    shell::{root, run},
    tool,
};

const CARGO_DENY: &str = "0.20.2";

/// Checks the workspace, as deny.toml has it. Advisories are fetched.
///
/// # Errors
/// Where something is found, or the advisories cannot be had.
pub fn deny() -> Result<()> {
    let program = tool::installed("cargo-deny", CARGO_DENY, &["--no-default-features"])?;
    run(Command::new(program).args(["check"]).current_dir(root()))
}
