//! Wireshark's extcap: it and tshark list what can be traced, show the options as a form, and capture from here.
//!
//! They find the binary in a folder of theirs, and each call begins with an option of extcap(4). What a form says becomes
//! the command line of an ordinary trace, which is made by this process, or by another where this one is not root.

mod arguments;
mod command_line;
mod fifo;
mod form;
mod interface;
mod root;

pub use arguments::Arguments;

use std::{
    ffi::OsString,
    io::{self, Write},
};

use nix::unistd::{Uid, geteuid};

use crate::{
    error::{Context, Error, Result},
    filter,
    words::plain,
};
use interface::Interface;

/// What came of a call.
#[derive(Debug)]
pub enum Answer {
    /// The exit status: all is said and done.
    Done(u8),
    /// The command line of the trace that is to be made in this process.
    Trace(Vec<OsString>),
}

/// Whether a command line is a call of this kind. Options of a program that is to be traced do not count.
pub fn is_call(words: &[OsString]) -> bool {
    let option = words.get(1).and_then(|word| word.to_str());
    option.is_some_and(|option| option == "--capture" || option.starts_with("--extcap-"))
}

/// Answers a call, on stdout.
///
/// # Errors
/// What is wrong with the call, or why no trace can be made. A mistake in a filter is an answer, if only that was asked.
pub fn answer(call: &Arguments) -> Result<Answer> {
    if call.capture {
        return capture(call);
    }
    if call.extcap_interfaces {
        return say(&interface::list());
    }
    let interface = call.interface()?;
    if call.extcap_dlts {
        return say(&interface.link_types());
    }
    if call.extcap_config {
        return say(&match &call.extcap_reload_option {
            Some(option) => interface.values(option)?,
            None => interface.form()?,
        });
    }
    match &call.extcap_capture_filter {
        Some(expression) => say(&mistake(interface, expression)),
        None => {
            Err(Error::told("nothing is asked of the interface: --extcap-config, --extcap-dlts or --capture"))
        }
    }
}

/// What is wrong with a filter, and nothing if it is right.
fn mistake(interface: Interface, expression: &str) -> String {
    if expression.trim().is_empty() {
        return String::new();
    }
    let compiled = filter::compile(expression, interface.link_type());
    compiled.err().map(|error| format!("{}\n", plain(&error.to_string()))).unwrap_or_default()
}

/// The pipe is opened first, and closed last: whoever reads it learns of a failure by its end, and asks for ours then.
fn capture(call: &Arguments) -> Result<Answer> {
    fifo::become_stdout(call.fifo.as_deref())?;
    let interface = call.interface()?;
    if geteuid().is_root() {
        return call.trace(interface, None).map(Answer::Trace);
    }
    // A program of one's own is no less that for being traced.
    let words = call.trace(interface, Some(Uid::current()))?;
    root::trace(&words).map(Answer::Done)
}

fn say(text: &str) -> Result<Answer> {
    io::stdout().write_all(text.as_bytes()).context("write to", "stdout")?;
    Ok(Answer::Done(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_option_counts() {
        let is_call = |line: &str| is_call(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(is_call("nsntrace --extcap-interfaces --extcap-version=4.0"));
        assert!(is_call("nsntrace --capture --extcap-interface nsntrace"));
        assert!(!is_call("nsntrace curl --extcap-interfaces"));
        assert!(!is_call("nsntrace"));
    }
}
