//! Arguments in, exit status out.

use std::{env, ffi::OsString, panic::catch_unwind, process::ExitCode};

use clap::{Parser, error::ErrorKind};
use nsntrace::{
    check,
    cli::{self, Cli},
    config::{Config, Words},
    error::{Error, Result},
    extcap::{self, Answer},
    trace,
    words::{Log, plain},
};

fn main() -> ExitCode {
    let words: Vec<_> = env::args_os().collect();
    let work = || if extcap::is_call(&words) { answer(&words) } else { trace(&words) };
    let status = catch_unwind(work).unwrap_or(Ok(FAILED));
    ExitCode::from(status.unwrap_or_else(|error| match error {
        Error::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(FAILED),
        error => {
            fail(&error);
            FAILED
        }
    }))
}

/// The exit status of nsntrace's own failures.
const FAILED: u8 = 1;

fn trace(words: &[OsString]) -> Result<u8> {
    match Cli::try_parse_from(words) {
        Ok(cli) => run(cli),
        // Help and version go to stdout; a mistake is one line, like every other.
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let _ = error.print();
            Ok(0)
        }
        Err(error) => Err(Error::told(cli::mistake(&error))),
    }
}

/// Wireshark calls.
fn answer(words: &[OsString]) -> Result<u8> {
    let call = extcap::Arguments::try_parse_from(words);
    match extcap::answer(&call.map_err(|error| Error::told(cli::mistake(&error)))?)? {
        Answer::Done(status) => Ok(status),
        Answer::Trace(words) => trace(&words),
    }
}

fn run(cli: Cli) -> Result<u8> {
    let config = Config::new(cli)?;
    if config.words == Words::Verbose {
        Log::install();
    }
    let status = match &config.running {
        _ if config.check => check::report::print(&config),
        Some(running) => trace::running(&config, running),
        None => trace::program(&config),
    };
    match status {
        Ok(_) | Err(Error::Interrupted(_)) if config.as_extcap => Ok(0),
        status => status,
    }
}

fn fail(error: &dyn std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "nsntrace: {}", plain(&error.to_string()));
}
