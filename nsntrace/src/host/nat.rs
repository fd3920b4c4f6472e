//! The rules that carry the program's packets between its link and the world, as one plan.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::IpAddr,
    process::{Command, Output, Stdio},
};

use serde::{Deserialize, Serialize};

use super::{lifeline, resolver::relay::Ports, run_id::RunId};
use crate::{
    error::{Context, Error, Result},
    subnet::Subnet,
};

/// How the comment of each rule begins.
const COMMENT: &str = "nsntrace:";

/// What `iptables -C` returns for a rule, chain or table that is not there; all else that goes wrong has other numbers.
const NOT_THERE: i32 = 1;

/// One rule of the packet filter, as iptables takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    table: String,
    chain: String,
    spec: String,
}

impl Rule {
    /// A rule whose comment names `owner`. No word of it may hold a space or an apostrophe: the crate that carries
    /// rules to iptables splits at them.
    pub(super) fn new(
        table: &str,
        chain: &str,
        matches: &str,
        owner: impl std::fmt::Display,
        target: &str,
    ) -> Self {
        let spec = format!("{matches} -m comment --comment {COMMENT}{owner} -j {target}");
        Self { table: table.into(), chain: chain.into(), spec }
    }

    /// Whether it is a rule that a run makes.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.table.as_str(), "nat" | "filter") && self.spec.contains(COMMENT)
    }
}

/// The rules of one run.
pub fn plan(link: &str, subnet: &Subnet, id: RunId) -> Vec<Rule> {
    let inside = subnet.inside;
    vec![
        Rule::new("nat", "POSTROUTING", &format!("-s {inside} ! -o {link}"), id, "MASQUERADE"),
        // The last of a chain comes first: of what is sent to the program answers pass, and only answers.
        Rule::new("filter", "FORWARD", &format!("-o {link}"), id, "DROP"),
        Rule::new(
            "filter",
            "FORWARD",
            &format!("-o {link} -m conntrack --ctstate RELATED,ESTABLISHED"),
            id,
            "ACCEPT",
        ),
        Rule::new("filter", "FORWARD", &format!("-i {link}"), id, "ACCEPT"),
    ]
}

/// The rules of a run whose name look-ups are relayed: port 53 of the gateway is where the relay listens, and no firewall
/// of the host keeps the program out.
pub fn relayed(link: &str, gateway: IpAddr, ports: Ports, id: RunId) -> Vec<Rule> {
    let rules = |(protocol, port)| {
        let to_gateway = format!("-i {link} -d {gateway} -p {protocol} --dport");
        let target = format!("DNAT --to-destination {gateway}:{port}");
        [
            Rule::new("nat", "PREROUTING", &format!("{to_gateway} 53"), id, &target),
            Rule::new("filter", "INPUT", &format!("{to_gateway} {port}"), id, "ACCEPT"),
        ]
    };
    [("udp", ports.udp), ("tcp", ports.tcp)].into_iter().flat_map(rules).collect()
}

/// The rules inside a namespace whose program has no resolv.conf: then its C library asks 127.0.0.1, and `server` is
/// asked in place of that.
pub fn in_place_of_loopback(server: IpAddr, id: RunId) -> Vec<Rule> {
    let rule = |protocol| {
        let matches = format!("-d 127.0.0.1 -p {protocol} --dport 53");
        Rule::new("nat", "OUTPUT", &matches, id, &format!("DNAT --to-destination {server}:53"))
    };
    vec![rule("udp"), rule("tcp"), Rule::new("nat", "POSTROUTING", "-s 127.0.0.1 ! -o lo", id, "MASQUERADE")]
}

/// Whether there is an iptables to work with.
///
/// # Errors
/// Names the package where there is none.
pub fn check() -> Result<()> {
    tool().map(|_| ())
}

/// Inserts the rules at the top of their chains, above what a firewall drops: one after the other, so the last comes
/// first. All the rules of a table, or none.
///
/// # Errors
/// What iptables says.
pub fn insert(rules: &[Rule]) -> Result<()> {
    let commands =
        rules.iter().map(|rule| (rule.table.as_str(), format!("-I {} 1 {}", rule.chain, rule.spec)));
    transaction(commands).context("insert rules into", "the packet filter")
}

/// Removes the rules that are there.
///
/// # Errors
/// What iptables says of the last rule that it could not remove; the others are gone.
pub fn remove(rules: &[Rule]) -> Result<()> {
    let commands = rules.iter().map(|rule| (rule.table.as_str(), format!("-D {} {}", rule.chain, rule.spec)));
    if transaction(commands).is_ok() {
        return Ok(());
    }
    // One of them may be gone already, and a transaction is all or nothing.
    let iptables = tool()?;
    rules.iter().rev().map(|rule| remove_one(&iptables, rule)).fold(Ok(()), Result::and)
}

/// Does it all in one process: a process for each rule takes ten times as long.
fn transaction<'a>(commands: impl Iterator<Item = (&'a str, String)>) -> Result<(), String> {
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    for (table, command) in commands {
        let commands = tables.entry(table).or_default();
        commands.push_str(&command);
        commands.push('\n');
    }
    let text: String =
        tables.iter().map(|(table, commands)| format!("*{table}\n{commands}COMMIT\n")).collect();
    let output = restore(&text).map_err(|error| format!("iptables-restore cannot be run: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(lines(&String::from_utf8_lossy(&output.stderr))) }
}

fn restore(text: &str) -> io::Result<Output> {
    let mut restore = Command::new("iptables-restore");
    restore.args(["--noflush", "--wait"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    lifeline::accompany(&mut restore);
    let mut child = restore.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where it does not read to the end, its status says why.
        let _ = stdin.write_all(text.as_bytes());
    }
    child.wait_with_output()
}

fn remove_one(iptables: &iptables::IPTables, rule: &Rule) -> Result<()> {
    let Err(error) = iptables.delete(&rule.table, &rule.chain, &rule.spec) else { return Ok(()) };
    let check = iptables.execute(&rule.table, &format!("-C {} {}", rule.chain, rule.spec));
    if check.is_ok_and(|output| output.status.code() == Some(NOT_THERE)) {
        return Ok(());
    }
    Err(one_line(error))
        .context("remove a rule from", format_args!("chain {} of table {}", rule.chain, rule.table))
}

fn tool() -> Result<iptables::IPTables> {
    iptables::new(false).map_err(|error| {
        Error::told(format!(
            "iptables is needed and cannot be run ({}): install the package iptables",
            one_line(error)
        ))
    })
}

fn one_line(error: Box<dyn std::error::Error>) -> String {
    lines(&error.to_string())
}

/// The lines of a message as one.
fn lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_their_run_and_hold_no_word_that_would_be_split() {
        let subnet =
            Subnet { gateway: [172, 16, 42, 254].into(), inside: [172, 16, 42, 255].into(), prefix_len: 31 };
        let rules = plan("nsgw1", &subnet, "0000abcd".parse().expect("an id"));
        for rule in &rules {
            assert!(rule.is_ours());
            assert!(rule.spec.contains("--comment nsntrace:0000abcd "), "{rule:?}");
            assert!(!rule.spec.contains(['\'', '"']), "{rule:?}");
        }
        assert_eq!(rules.last().map(|rule| rule.spec.starts_with("-i nsgw1 ")), Some(true));
    }
}
