//! What already runs and is traced in place of a program.

use std::path::PathBuf;

use crate::{
    cli::Cli,
    error::{Error, Result},
};

/// What already runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Running {
    /// What is in a cgroup, as that was named.
    Cgroup(PathBuf),
    /// A process, by its number.
    Process(u32),
}

impl Running {
    /// What is wanted, if that runs already. None of what is for a program goes with it.
    pub(super) fn wanted(cli: &Cli) -> Result<Option<Self>> {
        let (option, running) = match (&cli.cgroup, cli.pid) {
            (Some(cgroup), _) => ("--cgroup", Self::Cgroup(cgroup.clone())),
            (None, Some(pid)) => ("--pid", Self::Process(pid)),
            (None, None) => return Ok(None),
        };
        if let Some(program) = cli.command.first() {
            return Err(Error::told(format!(
                "{option} traces what already runs, and '{}' would be started: give one of them",
                program.display()
            )));
        }
        let for_a_program = [
            ("-d", cli.device.is_some()),
            ("-u", cli.user.is_some()),
            ("-p", !cli.publish.is_empty()),
            ("--use-public-dns", cli.use_public_dns),
            ("--host-loopback", cli.host_loopback),
            ("--loopback", cli.loopback),
            ("--tls-keys", cli.tls_keys),
        ];
        match for_a_program.iter().find(|(_, is_given)| *is_given) {
            Some((other, _)) => Err(Error::told(format!(
                "{other} is for a program in a namespace of its own, and {option} traces what already runs: leave it out"
            ))),
            None => Ok(Some(running)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::tests::config;

    #[test]
    fn what_already_runs_needs_no_program() {
        let running =
            |words: &str| config(&words.split(' ').collect::<Vec<_>>()).map(|config| config.running);
        assert_eq!(running("true").expect("valid"), None);
        assert_eq!(running("--cgroup a").expect("valid"), Some(Running::Cgroup("a".into())));
        assert_eq!(running("-c 3 --pid 7").expect("valid"), Some(Running::Process(7)));
        let options = ["-d x", "-u x", "-p 1", "--use-public-dns", "--host-loopback", "--loopback"];
        for words in options.map(|option| format!("--cgroup a {option}")) {
            let error = running(&words).expect_err(&words).to_string();
            assert!(error.starts_with(&words[11..13]) && error.contains("--cgroup"), "{error}");
        }
        let error = running("--pid 7 true").expect_err("two things").to_string();
        assert!(error.contains("--pid") && error.contains("'true'"), "{error}");
        assert!(Cli::try_parse_from(["nsntrace", "--pid", "7", "--cgroup", "a"]).is_err());
        assert!(Cli::try_parse_from(["nsntrace", "-q"]).is_err());
    }
}
