//! The command line of a trace that a form stands for.

use std::ffi::OsString;

use nix::unistd::Uid;

use super::{arguments::Arguments, interface::Interface};
use crate::error::{Error, Result};

impl Arguments {
    /// The command line of the trace, which goes to stdout. A program runs as `user` where the form names none.
    ///
    /// # Errors
    /// What the form lacks.
    pub fn trace(&self, interface: Interface, user: Option<Uid>) -> Result<Vec<OsString>> {
        let mut words = Words::new(["nsntrace", "--as-extcap", "--quiet", "--outfile=-", "--format=pcapng"]);
        words.option("filter", self.extcap_capture_filter.as_deref());
        words.options("process", self.process.as_deref())?;
        words.option("snaplen", self.snaplen.as_deref());
        words.option("buffer-size", self.buffer_size.as_deref());
        match interface {
            Interface::Program => self.program(&mut words, user)?,
            Interface::Cgroup => self.running(&mut words)?,
        }
        Ok(words.0)
    }

    fn program(&self, words: &mut Words, user: Option<Uid>) -> Result<()> {
        let user = self.user.clone().or_else(|| user.map(|user| user.to_string()));
        words.option("user", user.as_deref());
        words.option("device", self.device.as_deref());
        words.options("publish", self.publish.as_deref())?;
        words.flag("tls-keys", self.tls_keys);
        words.flag("use-public-dns", self.use_public_dns);
        words.flag("host-loopback", self.host_loopback);
        words.flag("loopback", self.loopback);
        let command = split("program", self.program.as_deref().unwrap_or_default())?;
        if command.is_empty() {
            return Err(Error::told(
                "there is no program to trace: name one in the options of the interface, or for tshark with \
                 -o 'extcap.nsntrace.program:curl https://example.org/'",
            ));
        }
        words.0.push("--".into());
        words.0.extend(command.into_iter().map(OsString::from));
        Ok(())
    }

    fn running(&self, words: &mut Words) -> Result<()> {
        let choices = [("cgroup", &self.cgroup), ("cgroup", &self.named), ("pid", &self.pid)];
        let chosen = choices.iter().filter_map(|(option, value)| Some((*option, value.as_deref()?)));
        match chosen.filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>()[..] {
            [(option, value)] => words.option(option, Some(value)),
            [] => {
                return Err(Error::told(
                    "there is no cgroup to trace: name one in the options of the interface, or for tshark with \
                     -o extcap.nsntrace_cgroup.cgroup:web.service",
                ));
            }
            _ => {
                return Err(Error::told(
                    "several things to trace are named: a cgroup of the list, one by name, or that of a process, and one \
                     can be traced",
                ));
            }
        }
        Ok(())
    }
}

/// The words of a command line.
struct Words(Vec<OsString>);

impl Words {
    fn new(words: [&str; 5]) -> Self {
        Self(words.map(OsString::from).into())
    }

    /// A field that was left empty says nothing.
    fn option(&mut self, name: &str, value: Option<&str>) {
        let value = value.filter(|value| !value.is_empty());
        self.0.extend(value.map(|value| format!("--{name}={value}").into()));
    }

    /// The option for each word of the field.
    fn options(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        for word in split(name, value.unwrap_or_default())? {
            self.option(name, Some(&word));
        }
        Ok(())
    }

    fn flag(&mut self, name: &str, is_set: bool) {
        self.0.extend(is_set.then(|| format!("--{name}").into()));
    }
}

/// The words of a field, as a shell would have them.
fn split(name: &str, text: &str) -> Result<Vec<String>> {
    shlex::split(text).ok_or_else(|| Error::told(format!("--{name}: a quote is not closed in: {text}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        cli::Cli,
        config::{Config, Format, Outfile, Running, Words as Wordy},
    };

    fn call(words: &[&str]) -> Arguments {
        Arguments::try_parse_from(["nsntrace", "--capture"].iter().chain(words)).expect("clap takes it")
    }

    /// The configuration that the command line of a trace comes to.
    fn config(words: &[&str], user: Option<Uid>) -> Result<Config> {
        let call = call(words);
        let words = call.trace(call.interface()?, user)?;
        Config::new(Cli::try_parse_from(words).expect("clap takes it"))
    }

    fn program(words: &[&str]) -> Result<Config> {
        config(&[&["--extcap-interface", "nsntrace"], words].concat(), None)
    }

    fn cgroup(words: &[&str]) -> Result<Config> {
        config(&[&["--extcap-interface", "nsntrace-cgroup"], words].concat(), None)
    }

    #[test]
    fn a_form_becomes_an_ordinary_trace() {
        let config = program(&[
            "--fifo",
            "/tmp/fifo",
            "--extcap-capture-filter",
            "-1 < ip[0]",
            "--program",
            "-x 'a b' -- --cgroup",
            "--user",
            "alice",
            "--tls-keys",
            "--device",
            "eth1",
            "--use-public-dns",
            "--publish",
            "80 53/udp",
            "--host-loopback",
            "--loopback",
            "--process",
            "curl 'my daemon'",
            "--snaplen",
            "96",
            "--buffer-size",
            "64",
        ])
        .expect("valid");
        assert!(config.as_extcap && config.tls_keys && config.use_public_dns);
        assert!(config.host_loopback && config.loopback);
        assert_eq!(
            (config.outfile, config.format, config.words),
            (Outfile::Stdout, Format::Pcapng, Wordy::Quiet)
        );
        assert_eq!(config.filter.as_deref(), Some("-1 < ip[0]"));
        assert_eq!(config.program, "-x");
        assert_eq!(config.arguments, ["a b", "--", "--cgroup"]);
        assert_eq!((config.user.as_deref(), config.device.as_deref()), (Some("alice"), Some("eth1")));
        assert_eq!((config.published.len(), config.processes.len()), (2, 2));
        assert_eq!((config.snaplen, config.ring_bytes), (96, 64 << 10));
    }

    #[test]
    fn defaults_of_the_form_are_those_of_the_command_line() {
        let values = |form: &'static [&str], wanted: &str| -> Vec<&str> {
            let of = |option: &&'static str| -> Option<[&str; 2]> {
                let part = |name: &str| {
                    let rest = option.split_once(&format!("{{{name}="))?.1;
                    Some(rest.split_once('}')?.0)
                };
                let value = part("default")?;
                (part("type") == Some(wanted)).then_some([part("call")?, value])
            };
            form.iter().filter_map(of).flatten().collect()
        };
        let numbers = values(super::super::form::PROGRAM, "unsigned");
        assert_eq!(numbers.len(), 4);
        let with = program(&[&numbers[..], &["--program", "true"]].concat()).expect("valid");
        let without = program(&["--program", "true"]).expect("valid");
        assert_eq!(format!("{with:?}"), format!("{without:?}"));
        assert!(
            values(super::super::form::PROGRAM, "boolflag")
                .iter()
                .skip(1)
                .step_by(2)
                .all(|value| *value == "false")
        );
    }

    #[test]
    fn who_runs_wireshark_runs_the_program() {
        let user = |words: &[&str]| {
            let words = [&["--extcap-interface", "nsntrace", "--program", "true"], words].concat();
            config(&words, Some(Uid::from_raw(1000))).expect("valid").user
        };
        assert_eq!(user(&[]).as_deref(), Some("1000"));
        assert_eq!(user(&["--user", "alice"]).as_deref(), Some("alice"));
    }

    #[test]
    fn one_cgroup_by_each_of_three_ways() {
        let running = |words: &[&str]| cgroup(words).map(|config| config.running);
        let web = Some(Running::Cgroup("web.service".into()));
        assert_eq!(running(&["--cgroup", "web.service"]).expect("valid"), web);
        assert_eq!(running(&["--named", "web.service", "--cgroup", ""]).expect("valid"), web);
        assert_eq!(running(&["--pid", "7"]).expect("valid"), Some(Running::Process(7)));
        for (words, part) in [(&[][..], "no cgroup"), (&["--pid", "7", "--named", "x"], "several")] {
            let error = running(words).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        for (words, part) in [
            (&[][..], "extcap.nsntrace.program:"),
            (&["--program", " "], "no program"),
            (&["--program", "sh -c 'x"], "quote"),
            (&["--program", "true", "--process", "\"x"], "--process"),
        ] {
            let error = program(words).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(call(&[]).interface().expect_err("none").to_string().contains("--extcap-interface"));
    }
}
