//! From the text of an expression to a classic program, by libpcap.

use std::{ffi::CString, time::Duration};

use nsntrace_ebpf::linktype;

use super::{classic::Instruction, process::Libpcap};
use crate::{
    error::{Context, Error, Result},
    words::plain,
};

/// So long compiling may take: names are looked up.
const COMPILER: Duration = Duration::from_secs(60);

/// So long the optimiser may take after that.
const OPTIMISER: Duration = Duration::from_secs(10);

/// So much of an expression is shown with an error, in characters.
const SHOWN: usize = 200;

/// What libpcap makes of an expression.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The program.
    pub program: Vec<Instruction>,
    /// Whether libpcap was done optimising it in time. If not it does the same, in more steps.
    pub is_optimised: bool,
}

/// Compiles an expression for packets of a link type, see [`linktype`](nsntrace_ebpf::linktype). Names of hosts, networks
/// and services are looked up where the caller is. While the process has one thread.
///
/// # Errors
/// What libpcap says of the expression.
pub fn compile(expression: &str, linktype: u16) -> Result<Compiled> {
    let text = CString::new(expression).context("read", "the filter expression")?;
    let libpcap = Libpcap::start(&text, linktype)?;
    let program = match libpcap.answer(COMPILER) {
        Ok(Some(answer)) => answer.map_err(|message| refused(expression, &message))?,
        Ok(None) => {
            let reason =
                "libpcap has not compiled it after a minute; shorten it, or give addresses for names";
            return Err(refused(expression, reason));
        }
        Err(error) => {
            return Err(refused(expression, &format!("libpcap did not survive it ({error}); shorten it")));
        }
    };
    match libpcap.answer(OPTIMISER) {
        Ok(Some(Ok(program))) => Ok(Compiled { program, is_optimised: true }),
        Ok(Some(Err(message))) => Err(refused(expression, &message)),
        Ok(None) | Err(_) => Ok(Compiled { program, is_optimised: false }),
    }
}

/// Whether there is a libpcap to compile expressions. While the process has one thread.
///
/// # Errors
/// Says what to install where there is none.
pub fn check() -> Result<()> {
    match Libpcap::start(c"", linktype::EN10MB)?.answer(COMPILER) {
        Ok(Some(Err(message))) => Err(Error::told(message)),
        answer => answer.map(|_| ()).context("ask", "libpcap"),
    }
}

fn refused(expression: &str, reason: &str) -> Error {
    let text = plain(expression);
    let mut start: String = text.chars().take(SHOWN).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    Error::told(format!("-f '{start}': {}", plain(reason)))
}
