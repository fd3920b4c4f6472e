//! Rules carried to the kernel by iptables and ip6tables.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fmt,
    io::{self, ErrorKind, Write},
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use super::{
    legacy, lifeline,
    nat::{Family, Rule},
    netfilter::Afterwards,
    own_rules::{self, Owner},
};
use crate::{
    error::{Context, Error, Result},
    words::one_line,
};

/// What `iptables -C` returns for a rule or chain that is not there; all else that goes wrong has other numbers.
const NOT_THERE: i32 = 1;

/// The programs that the tools are links to.
const NFT: &str = "xtables-nft-multi";
const LEGACY: &str = "xtables-legacy-multi";

/// What it says of a table that the kernel does not have, and returns other numbers for.
const NO_TABLE: &str = "Table does not exist";

/// The tool for the rules of a family.
pub(super) fn tool(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// Where an iptables keeps its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// In chains of nftables.
    Nftables,
    /// In tables of the kernel that are its own.
    Legacy,
}

/// The iptables to work with, for rules of that family. On most hosts what its name leads to tells which kind it is, and
/// it need not be asked.
///
/// # Errors
/// Names the package where there is none.
pub fn find(family: Family) -> Result<Installed> {
    let path = search(tool(family)).and_then(|path| path.canonicalize().ok());
    match path.as_deref().and_then(Path::file_name).and_then(OsStr::to_str) {
        Some(NFT) => Ok(Installed::Nftables),
        Some(LEGACY) => Ok(Installed::Legacy),
        _ => version(family).map(|version| {
            if version.contains("nf_tables") { Installed::Nftables } else { Installed::Legacy }
        }),
    }
}

/// What the iptables for that family tells of itself.
///
/// # Errors
/// As [`find`].
pub fn version(family: Family) -> Result<String> {
    let output = Command::new(tool(family)).arg("--version").output();
    let output = output.map_err(|error| not_runnable(family, &error, error.kind() == ErrorKind::NotFound))?;
    let text = |bytes: &[u8]| one_line(&String::from_utf8_lossy(bytes));
    if !output.status.success() {
        return Err(not_runnable(family, &text(&output.stderr), false));
    }
    Ok(text(&output.stdout))
}

/// Where the shell would find it.
fn search(tool: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(tool)).find(|path| path.is_file())
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

/// Removes the rules that are there, and each as often as it is: those that runs share may have been inserted twice, by
/// one that was killed half way. Those in chains of nftables need no iptables for that; with the tag of a run all go that
/// it has there, in chains of others too.
///
/// # Errors
/// What the kernel says, or iptables of the last rule that it could not remove; the others are gone.
pub fn remove(rules: &[Rule], run: Option<&str>) -> Result<Afterwards> {
    let mut owners: Vec<_> = run.map(Owner::run).into_iter().chain(rules.iter().map(Rule::owner)).collect();
    owners.dedup();
    let afterwards = own_rules::remove(&owners)?;
    let (v4, v6) = each_family(rules, |family, rules| match find(family) {
        Ok(Installed::Nftables) => Ok(()),
        // It may have been in tables of its own that it has put them.
        Err(error) if search(tool(family)).is_some() && legacy::has_table(family, "filter")? => Err(error),
        Err(_) => Ok(()),
        Ok(Installed::Legacy) => remove_legacy(family, rules),
    });
    v4.and(v6).map(|()| afterwards)
}

fn remove_legacy(family: Family, rules: &[&Rule]) -> Result<()> {
    let commands = rules.iter().map(|rule| (rule.table.as_str(), format!("-D {} {}", rule.chain, rule.spec)));
    let is_done = transaction(family, commands).is_ok();
    let iptables = start(family)?;
    let is_there = |rule: &Rule| check_one(&iptables, rule).is_ok_and(|output| output.status.success());
    let mut result = Ok(());
    // One of them may have been gone already, and a transaction is all or nothing.
    for rule in rules.iter().rev().filter(|rule| !is_done || rule.is_shared()) {
        if !is_done {
            result = result.and(remove_one(&iptables, rule));
        }
        while rule.is_shared() && result.is_ok() && is_there(rule) {
            result = remove_one(&iptables, rule);
        }
    }
    result
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
