//! When and with what something was measured.

use std::{fmt, fs, process::Command};

use anyhow::{Context, Result};
use nsntrace_tests::nsntrace_binary;
use serde::Serialize;

/// Who is asked for a version, and how many words of the answer are one.
const PEERS: [(&str, usize); 3] = [("tcpdump", 3), ("dumpcap", 3), ("iperf3", 2)];

/// What a figure depends on.
#[derive(Debug, Serialize)]
pub struct Place {
    /// In UTC.
    date: String,
    kernel: String,
    processors: String,
    versions: Vec<String>,
}

impl Place {
    /// This machine, now.
    pub fn here() -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let names: Vec<_> =
            processors.lines().filter_map(|line| line.strip_prefix("model name\t: ")).collect();
        let nsntrace = nsntrace_binary()?.display().to_string();
        let mut versions = vec![first_words(&nsntrace, &["--version"], 2)?];
        for (peer, words) in PEERS {
            versions.push(first_words(peer, &["--version"], words)?);
        }
        Ok(Self {
            date: first_words("date", &["-u", "+%F %H:%M"], 2)?,
            kernel: first_words("uname", &["-sr"], 2)?,
            processors: format!("{} × {}", names.len(), names.first().unwrap_or(&"unknown")),
            versions,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} UTC, {}, {}, {}", self.date, self.kernel, self.processors, self.versions.join(", "))
    }
}

/// The first words of what a command says.
fn first_words(program: &str, arguments: &[&str], count: usize) -> Result<String> {
    let said =
        Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    // tcpdump tells its version on stderr.
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Ok(said.split_whitespace().take(count).collect::<Vec<_>>().join(" "))
}
