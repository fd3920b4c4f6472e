//! Rules carried to the kernel by iptables and ip6tables.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind, Write},
    panic::resume_unwind,
    process::{Command, Output, Stdio},
    thread,
};

use super::{
    lifeline,
    nat::{Family, Rule},
};
use crate::{
    error::{Context, Error, Result},
    words::one_line,
};

/// What `iptables -C` returns for a rule or chain that is not there; all else that goes wrong has other numbers.
const NOT_THERE: i32 = 1;

/// What it says of a table that the kernel does not have, and returns other numbers for.
const NO_TABLE: &str = "Table does not exist";

/// The tool for the rules of a family.
pub(super) fn tool(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
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
    let output = Command::new(tool(family)).arg("--version").output();
    let output = output.map_err(|error| not_runnable(family, &error, error.kind() == ErrorKind::NotFound))?;
    let text = |bytes: &[u8]| one_line(&String::from_utf8_lossy(bytes));
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
        let iptables = start(family)?;
        rules.iter().rev().map(|rule| remove_one(&iptables, rule)).fold(Ok(()), Result::and)
    });
    v4.and(v6)
}

/// Removes a rule that runs share, as often as it is there: who was killed half way may have inserted it beside another.
///
/// # Errors
/// What iptables says.
pub fn remove_all(rule: &Rule) -> Result<()> {
    remove(std::slice::from_ref(rule))?;
    let iptables = start(rule.family)?;
    let is_there = || check_one(&iptables, rule).is_ok_and(|output| output.status.success());
    while is_there() {
        remove_one(&iptables, rule)?;
    }
    Ok(())
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
    let restore = format!("{}-restore", tool(family));
    let output = run(&restore, &text).map_err(|error| format!("{restore} cannot be run: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(one_line(&String::from_utf8_lossy(&output.stderr))) }
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
    let check = check_one(iptables, rule);
    let is_gone = |output: Output| {
        output.status.code() == Some(NOT_THERE) || String::from_utf8_lossy(&output.stderr).contains(NO_TABLE)
    };
    if check.is_ok_and(is_gone) {
        return Ok(());
    }
    Err(one_line(&error.to_string()))
        .context("remove a rule from", format_args!("chain {} of table {}", rule.chain, rule.table))
}

fn check_one(
    iptables: &iptables::IPTables,
    rule: &Rule,
) -> std::result::Result<Output, Box<dyn std::error::Error>> {
    iptables.execute(&rule.table, &format!("-C {} {}", rule.chain, rule.spec))
}

fn start(family: Family) -> Result<iptables::IPTables> {
    iptables::new(family == Family::V6).map_err(|error| {
        let is_missing =
            error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound);
        not_runnable(family, &one_line(&error.to_string()), is_missing)
    })
}

fn not_runnable(family: Family, why: &dyn fmt::Display, is_missing: bool) -> Error {
    let advice = if is_missing { ": install the package iptables" } else { "" };
    Error::told(format!("{} is needed and cannot be run ({why}){advice}", tool(family)))
}
