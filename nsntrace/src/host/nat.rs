//! The rules that carry the program's packets between its link and the world, as one plan.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind, Write},
    net::IpAddr,
    panic::resume_unwind,
    process::{Command, Output, Stdio},
    thread,
};

use serde::{Deserialize, Serialize};

use super::{lifeline, link::OUTER, resolver::relay::Ports, run_id::RunId};
use crate::{
    error::{Context, Error, Result},
    subnet::Subnet,
};

/// How the comment of each rule begins.
const COMMENT: &str = "nsntrace:";

/// What `iptables -C` returns for a rule or chain that is not there; all else that goes wrong has other numbers.
const NOT_THERE: i32 = 1;

/// What it says of a table that the kernel does not have, and returns other numbers for.
const NO_TABLE: &str = "Table does not exist";

/// Which of the two packet filters a rule belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// IPv4, by iptables.
    V4,
    /// IPv6, by ip6tables.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The tool for its rules.
    pub(super) fn tool(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// One rule of the packet filter, as iptables takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) spec: String,
}

impl Rule {
    /// A rule whose comment names `owner`. No word of it may hold a space or an apostrophe: the crate that carries
    /// rules to iptables splits at them.
    pub(super) fn new(
        family: Family,
        table: &str,
        chain: &str,
        matches: &str,
        owner: impl fmt::Display,
        target: &str,
    ) -> Self {
        let spec = format!("{matches} -m comment --comment {COMMENT}{owner} -j {target}");
        Self { family, table: table.into(), chain: chain.into(), spec }
    }

    /// The packet filter that it belongs to.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether it is a rule that a run makes.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.table.as_str(), "nat" | "filter") && self.spec.contains(COMMENT)
    }
}

/// The rules of one run for one of its subnets.
pub fn plan(link: &str, subnet: &Subnet, id: RunId) -> Vec<Rule> {
    let inside = subnet.inside;
    let rule = |table, chain, matches: &str, target| {
        Rule::new(Family::of(inside), table, chain, matches, id, target)
    };
    vec![
        rule("nat", "POSTROUTING", &format!("-s {inside} ! -o {link}"), "MASQUERADE"),
        // The last of a chain comes first: of what is sent to the program answers pass, and only answers.
        rule("filter", "FORWARD", &format!("-o {link}"), "DROP"),
        rule("filter", "FORWARD", &format!("-o {link} -m conntrack --ctstate RELATED,ESTABLISHED"), "ACCEPT"),
        // What is sent to another run's program that run decides on, whose rules may stand below.
        rule("filter", "FORWARD", &format!("-i {link} ! -o {OUTER}+"), "ACCEPT"),
    ]
}

/// The rules of a run whose name look-ups are relayed: port 53 of the gateway is where the relay listens, and no firewall
/// of the host keeps the program out.
pub fn relayed(link: &str, gateway: IpAddr, ports: Ports, id: RunId) -> Vec<Rule> {
    let rules = |(protocol, port)| {
        let to_gateway = format!("-i {link} -d {gateway} -p {protocol} --dport");
        let target = format!("DNAT --to-destination {gateway}:{port}");
        let rule = |table, chain, matches: String, target: &str| {
            Rule::new(Family::of(gateway), table, chain, &matches, id, target)
        };
        [
            rule("nat", "PREROUTING", format!("{to_gateway} 53"), &target),
            rule("filter", "INPUT", format!("{to_gateway} {port}"), "ACCEPT"),
        ]
    };
    [("udp", ports.udp), ("tcp", ports.tcp)].into_iter().flat_map(rules).collect()
}

/// The rules inside a namespace whose program has no resolv.conf: then its C library asks 127.0.0.1, and `server` is
/// asked in place of that.
pub fn in_place_of_loopback(server: IpAddr, id: RunId) -> Vec<Rule> {
    let rule = |chain, matches: &str, target: &str| Rule::new(Family::V4, "nat", chain, matches, id, target);
    let target = format!("DNAT --to-destination {server}:53");
    let asked = |protocol| rule("OUTPUT", &format!("-d 127.0.0.1 -p {protocol} --dport 53"), &target);
    vec![asked("udp"), asked("tcp"), rule("POSTROUTING", "-s 127.0.0.1 ! -o lo", "MASQUERADE")]
}

/// An iptables, as it tells of itself.
#[derive(Clone, Debug)]
pub struct Installed(String);

impl Installed {
    /// Whether its rules are chains of nftables; else the kernel keeps them in tables of their own.
    pub fn is_nftables(&self) -> bool {
        self.0.contains("nf_tables")
    }
}

impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The iptables to work with, for rules of that family.
///
/// # Errors
/// Names the package where there is none.
pub fn check(family: Family) -> Result<Installed> {
    let output = Command::new(family.tool()).arg("--version").output();
    let output = output.map_err(|error| not_runnable(family, &error, error.kind() == ErrorKind::NotFound))?;
    let text = |bytes: &[u8]| lines(&String::from_utf8_lossy(bytes));
    if !output.status.success() {
        return Err(not_runnable(family, &text(&output.stderr), false));
    }
    Ok(Installed(text(&output.stdout)))
}

/// Inserts the rules at the top of their chains, above what a firewall drops: one after the other, so the last comes
/// first. All the rules of a table, or none. Returns what became of those for IPv4, and of those for IPv6: the error is
/// what iptables says.
pub fn insert(rules: &[Rule]) -> (Result<()>, Result<()>) {
    each_family(rules, |family, rules| {
        let commands =
            rules.iter().map(|rule| (rule.table.as_str(), format!("-I {} 1 {}", rule.chain, rule.spec)));
        transaction(family, commands)
            .context("insert rules into", format_args!("the packet filter of {family}"))
    })
}

/// Removes the rules that are there.
///
/// # Errors
/// What iptables says of the last rule that it could not remove; the others are gone.
pub fn remove(rules: &[Rule]) -> Result<()> {
    let (v4, v6) = each_family(rules, |family, rules| {
        let commands =
            rules.iter().map(|rule| (rule.table.as_str(), format!("-D {} {}", rule.chain, rule.spec)));
        if transaction(family, commands).is_ok() {
            return Ok(());
        }
        // One of them may be gone already, and a transaction is all or nothing.
        let iptables = tool(family)?;
        rules.iter().rev().map(|rule| remove_one(&iptables, rule)).fold(Ok(()), Result::and)
    });
    v4.and(v6)
}

/// Does `work` for the rules of each family, for both at the same time: most of it is waiting for the kernel.
fn each_family(
    rules: &[Rule],
    work: impl Fn(Family, &[&Rule]) -> Result<()> + Sync,
) -> (Result<()>, Result<()>) {
    let of = |family| rules.iter().filter(|rule| rule.family == family).collect::<Vec<_>>();
    let (v4, v6) = (of(Family::V4), of(Family::V6));
    let work = |family, rules: &[&Rule]| if rules.is_empty() { Ok(()) } else { work(family, rules) };
    if v4.is_empty() || v6.is_empty() {
        return (work(Family::V4, &v4), work(Family::V6, &v6));
    }
    thread::scope(|scope| {
        let other = thread::Builder::new().spawn_scoped(scope, || work(Family::V6, &v6));
        let own = work(Family::V4, &v4);
        let other = other.context("start", "a thread");
        (own, other.and_then(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))))
    })
}

/// Does it all in one process: a process for each rule takes ten times as long.
fn transaction<'a>(family: Family, commands: impl Iterator<Item = (&'a str, String)>) -> Result<(), String> {
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    for (table, command) in commands {
        let commands = tables.entry(table).or_default();
        commands.push_str(&command);
        commands.push('\n');
    }
    let text: String =
        tables.iter().map(|(table, commands)| format!("*{table}\n{commands}COMMIT\n")).collect();
    let restore = format!("{}-restore", family.tool());
    let output = run(&restore, &text).map_err(|error| format!("{restore} cannot be run: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(lines(&String::from_utf8_lossy(&output.stderr))) }
}

fn run(restore: &str, text: &str) -> io::Result<Output> {
    let mut restore = Command::new(restore);
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
    let is_gone = |output: Output| {
        output.status.code() == Some(NOT_THERE) || String::from_utf8_lossy(&output.stderr).contains(NO_TABLE)
    };
    if check.is_ok_and(is_gone) {
        return Ok(());
    }
    Err(one_line(error))
        .context("remove a rule from", format_args!("chain {} of table {}", rule.chain, rule.table))
}

fn tool(family: Family) -> Result<iptables::IPTables> {
    iptables::new(family == Family::V6).map_err(|error| {
        let is_missing =
            error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound);
        not_runnable(family, &one_line(error), is_missing)
    })
}

fn not_runnable(family: Family, why: &dyn fmt::Display, is_missing: bool) -> Error {
    let advice = if is_missing { ": install the package iptables" } else { "" };
    Error::told(format!("{} is needed and cannot be run ({why}){advice}", family.tool()))
}

fn one_line(error: Box<dyn std::error::Error>) -> String {
    lines(&error.to_string())
}

/// The lines of a message as one.
pub(super) fn lines(text: &str) -> String {
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
