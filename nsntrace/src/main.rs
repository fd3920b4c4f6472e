//! Arguments in, exit status out.

use std::{panic::catch_unwind, process::ExitCode};

use clap::{Parser, error::ErrorKind};
use nsntrace::{
    check,
    cli::Cli,
    config::{Config, Words},
    error::{Error, Result},
    trace,
    words::{Log, plain},
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return told(&error),
    };
    let status = catch_unwind(|| run(cli)).unwrap_or(Ok(FAILED));
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

fn run(cli: Cli) -> Result<u8> {
    let config = Config::new(cli)?;
    if config.words == Words::Verbose {
        Log::install();
    }
    match &config.running {
        _ if config.check => check::report::print(&config),
        Some(running) => trace::running(&config, running).map(|()| 0),
        None => trace::program(&config),
    }
}

/// Help and version go to stdout; a mistake is one line, like every other.
fn told(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::MissingRequiredArgument {
        fail(&"there is no program to trace; see 'nsntrace --help'");
        return ExitCode::from(FAILED);
    }
    let text = error.to_string();
    let text = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let line: Vec<_> = text.split_whitespace().collect();
    fail(&format_args!("{}; see 'nsntrace --help'", line.join(" ")));
    ExitCode::from(FAILED)
}

fn fail(error: &dyn std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "nsntrace: {}", plain(&error.to_string()));
}
