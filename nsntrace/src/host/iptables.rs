//! Rules carried to the kernel by iptables and ip6tables.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::{
    bridges, lifeline,
    nat::{Family, Rule, comment},
    packet_filter::Carrier,
};
use crate::{
    error::{Context, Error, Result},
    search_path,
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

/// The iptables to work with, for rules of that family. On most hosts what its name leads to tells which kind it is, and
/// it need not be asked.
///
/// # Errors
/// Names the package where there is none.
pub fn find(family: Family) -> Result<Carrier> {
    let path = search(tool(family)).and_then(|path| path.canonicalize().ok());
    match path.as_deref().and_then(Path::file_name).and_then(OsStr::to_str) {
        Some(NFT) => Ok(Carrier::Iptables),
        Some(LEGACY) => Ok(Carrier::IptablesLegacy),
        _ => version(family).map(|version| {
            if version.contains("nf_tables") { Carrier::Iptables } else { Carrier::IptablesLegacy }
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

/// Whether there is an iptables for that family.
pub fn is_there(family: Family) -> bool {
    search(tool(family)).is_some()
}

/// Where the shell would find it.
pub(super) fn search(tool: &str) -> Option<PathBuf> {
    search_path::places(tool).into_iter().find(|path| path.is_file())
}

/// Inserts the rules of a family: all those of a table, or none.
///
/// # Errors
/// What iptables says.
pub fn insert(family: Family, rules: &[&Rule]) -> Result<(), String> {
    let insert = |spec: fn(&Rule) -> String| {
        let command = |rule: &Rule| format!("-I {} 1 {}", rule.chain, spec(rule));
        transaction(family, rules.iter().map(|rule| (rule.table.as_str(), command(rule))))
    };
    insert(|rule| rule.spec.clone()).or_else(|error| {
        // The kernel may lack the match, and where there is no bridge nobody needs it.
        let is_needless = || bridges::names().is_ok_and(|names| names.is_empty());
        let is_asked = rules.iter().any(|rule| rule.asks_whether_routed());
        if is_asked && is_needless() {
            insert(Rule::spec_without_bridges).map_err(|_| error)
        } else {
            Err(error)
        }
    })
}

/// Removes rules of iptables-legacy, and those that runs share as often as they are there.
///
/// # Errors
/// What iptables says of the last rule that it could not remove; the others are gone.
pub fn remove_legacy(family: Family, rules: &[&Rule]) -> Result<()> {
    let (shared, own): (Vec<&Rule>, Vec<&Rule>) = rules.iter().copied().partition(|rule| rule.is_shared());
    let commands = own.iter().map(|rule| (rule.table.as_str(), format!("-D {} {}", rule.chain, rule.spec)));
    let is_done = transaction(family, commands).is_ok();
    let iptables = start(family)?;
    let mut result = Ok(());
    // One of them may have been gone already, and a transaction is all or nothing.
    for rule in own.into_iter().rev().filter(|_| !is_done) {
        result = result.and(remove_one(&iptables, rule));
    }
    for rule in shared {
        result = result.and(remove_shared(family, &iptables, rule));
    }
    result
}

/// By its comment: what else is in it depends on what the host was like then.
fn remove_shared(family: Family, iptables: &iptables::IPTables, rule: &Rule) -> Result<()> {
    let failed = |why| not_removed(rule, why);
    let listed = match iptables.execute(&rule.table, &format!("-S {}", rule.chain)) {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) if is_not_there(&output) => return Ok(()),
        Ok(output) => return failed(one_line(&String::from_utf8_lossy(&output.stderr))),
        Err(error) => return failed(one_line(&error.to_string())),
    };
    // As it is printed: in quotes, and with some characters behind a backslash.
    let bare = |text: &str| text.replace(['"', '\\'], "");
    let owner = bare(&rule.owner().comment);
    let is_it = |line: &&str| comment(line).is_some_and(|found| bare(found) == owner);
    let commands = listed.lines().filter(is_it).filter_map(|line| line.strip_prefix("-A "));
    transaction(family, commands.map(|line| (rule.table.as_str(), format!("-D {line}")))).or_else(failed)
}

/// Does it all in one process: a process for each rule takes ten times as long.
fn transaction<'a>(family: Family, commands: impl Iterator<Item = (&'a str, String)>) -> Result<(), String> {
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    for (table, command) in commands {
        let commands = tables.entry(table).or_default();
        commands.push_str(&command);
        commands.push('\n');
    }
    if tables.is_empty() {
        return Ok(());
    }
    let text: String =
        tables.iter().map(|(table, commands)| format!("*{table}\n{commands}COMMIT\n")).collect();
    let restore = format!("{}-restore", tool(family));
    let output = lifeline::run(Command::new(&restore).args(["--noflush", "--wait"]), &text);
    let output = output.map_err(|error| format!("{restore} cannot be run: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(one_line(&String::from_utf8_lossy(&output.stderr))) }
}

fn remove_one(iptables: &iptables::IPTables, rule: &Rule) -> Result<()> {
    let Err(error) = iptables.delete(&rule.table, &rule.chain, &rule.spec) else { return Ok(()) };
    let check = iptables.execute(&rule.table, &format!("-C {} {}", rule.chain, rule.spec));
    if check.is_ok_and(|output| is_not_there(&output)) {
        return Ok(());
    }
    not_removed(rule, one_line(&error.to_string()))
}

fn not_removed(rule: &Rule, why: String) -> Result<()> {
    Err(why).context("remove a rule from", format_args!("chain {} of table {}", rule.chain, rule.table))
}

fn is_not_there(output: &Output) -> bool {
    output.status.code() == Some(NOT_THERE) || String::from_utf8_lossy(&output.stderr).contains(NO_TABLE)
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
