//! Rules on their way into the kernel, and out of it: by iptables, whose chains most hosts have, or by nft.

use std::{panic::resume_unwind, process::Command, thread};

use super::{
    iptables, legacy,
    nat::{Family, Rule},
    netfilter::Afterwards,
    nft,
    own_rules::{self, Owner},
    own_table,
};
use crate::{
    error::{Context, Error, Result},
    words::one_line,
};

/// Who carries rules, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// An iptables whose chains are those of nftables.
    Iptables,
    /// One whose tables are the kernel's own for it.
    IptablesLegacy,
    /// nft, into a table of ours.
    Nft,
}

/// Who carries the rules of that family: iptables where there is one, for its chains come with it and may drop packets.
///
/// # Errors
/// Names the packages where there is nobody.
pub fn find(family: Family) -> Result<Carrier> {
    if iptables::is_there(family) {
        return iptables::find(family);
    }
    if iptables::search(nft::TOOL).is_some() {
        return Ok(Carrier::Nft);
    }
    Err(Error::told(format!(
        "neither {} nor nft is in PATH, and one of them is needed: add /usr/sbin to it, or install the package iptables, \
         or nftables",
        iptables::tool(family)
    )))
}

/// The same, as it tells of itself.
///
/// # Errors
/// As [`find`], and where it cannot be run.
pub fn describe(family: Family) -> Result<String> {
    if find(family)? != Carrier::Nft {
        return iptables::version(family);
    }
    let output = Command::new(nft::TOOL).arg("--version").output().context("run", nft::TOOL)?;
    let version = one_line(&String::from_utf8_lossy(&output.stdout));
    Ok(format!("{version}, in place of {}", iptables::tool(family)))
}

/// Inserts the rules at the top of their chains, above what a firewall drops: one after the other, so the last comes
/// first. All the rules of a family's table, or none. Returns what became of those for IPv4, and of those for IPv6.
pub fn insert(rules: &[Rule]) -> (Result<()>, Result<()>) {
    each_family(rules, |family, rules| {
        let inserted = match find(family)? {
            Carrier::Nft => own_table::insert(family, rules).map_err(|error| error.to_string()),
            Carrier::Iptables | Carrier::IptablesLegacy => iptables::insert(family, rules),
        };
        inserted.context("insert rules into", format_args!("the packet filter of {family}"))
    })
}

/// Removes the rules that are there, and each as often as it is: those that runs share may have been inserted twice, by
/// one that was killed half way. Those in chains of nftables need nobody for that; with the tag of a run all go that it
/// has there, in chains of others too.
///
/// # Errors
/// What the kernel says, or iptables of the last rule that it could not remove; the others are gone.
pub fn remove(rules: &[Rule], run: Option<&str>) -> Result<Afterwards> {
    let mut owners: Vec<_> = run.map(Owner::run).into_iter().chain(rules.iter().map(Rule::owner)).collect();
    owners.dedup();
    let afterwards = own_rules::remove(&owners)?;
    let (v4, v6) = each_family(rules, |family, rules| match find(family) {
        Ok(Carrier::IptablesLegacy) => iptables::remove_legacy(family, rules),
        Ok(Carrier::Iptables | Carrier::Nft) => Ok(()),
        // It may have been in tables of its own that it has put them.
        Err(error) if iptables::is_there(family) && legacy::has_table(family, "filter")? => Err(error),
        Err(_) => Ok(()),
    });
    v4.and(v6).map(|()| afterwards)
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
