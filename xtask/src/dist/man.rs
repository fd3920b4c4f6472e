//! The man page: what the command line tells of itself, and what is written by hand.

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;

/// The sections behind the options.
const BY_HAND: &str = include_str!("../../../nsntrace/packaging/man.roff");

/// The page, with the day that it is of.
///
/// # Errors
/// Where the command line cannot be told.
pub fn page(command: Command, date: &str) -> Result<String> {
    let man = Man::new(command).title("NSNTRACE").date(date).manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    Ok(String::from_utf8(page)? + BY_HAND)
}
