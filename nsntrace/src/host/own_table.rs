//! A table of ours, where there is no iptables whose chains the rules would go into. Runs share it: their rules stand in it
//! as they would in those chains.
//!
//! What it lets pass the chains of others may still drop, as everywhere in nftables: rules are put there too.

use serde_json::{Value, json};

use super::{
    base_chains, bridges,
    nat::{Family, Rule},
    netfilter::{
        self, DELETE_CHAIN, DELETE_TABLE, GET_CHAINS, GET_TABLES, Request, attribute, encoded, number, text,
    },
    nft,
};
use crate::error::{Error, Result};

/// What it is called, in each family.
pub const NAME: &str = "nsntrace";

/// Attributes of a table: its name, and how much there is in it.
const TABLE_NAME: u16 = 1;
const TABLE_USE: u16 = 3;

/// The attribute of a chain that says how many rules there are in it.
const CHAIN_USE: u16 = 6;

/// The chains that rules of ours may be in.
const CHAINS: [&str; 5] =
    ["nat_PREROUTING", "nat_OUTPUT", "nat_POSTROUTING", "filter_INPUT", "filter_FORWARD"];

/// Inserts the rules of a family, the last at the top of its chain, all or none. What is missing of the table is made.
///
/// # Errors
/// What nft says.
pub fn insert(family: Family, rules: &[&Rule]) -> Result<()> {
    let family = name_of(family);
    let mut commands = vec![json!({ "add": { "table": { "family": family, "name": NAME } } })];
    for rule in rules {
        let chain = add_chain(family, rule);
        if !commands.contains(&chain) {
            commands.push(chain);
        }
    }
    let is_asked = rules.iter().any(|rule| rule.asks_whether_routed());
    let bridges = if is_asked { bridges::names()? } else { Vec::new() };
    for rule in rules {
        let expressions = nft::expressions(rule, family, &bridges);
        let expressions = expressions.ok_or_else(|| Error::told("nft has no words for a rule"))?;
        commands.push(json!({ "insert": { "rule": {
            "family": family, "table": NAME, "chain": chain_of(rule), "comment": rule.owner().comment, "expr": expressions
        } } }));
    }
    nft::run(&commands).map(drop)
}

/// Takes the table away, in both families. What others have put into it stays, with what that is in.
///
/// # Errors
/// As [`netfilter::change`].
pub fn remove() -> Result<()> {
    let tables = netfilter::list(GET_TABLES, table)?;
    if tables.is_empty() {
        return Ok(());
    }
    let removed = netfilter::change(GET_CHAINS, chain, |chains| {
        tables.iter().flat_map(|table| removal(table, &chains)).collect()
    });
    match removed {
        Err(error) if error.errno() == Some(libc::EBUSY) => Ok(()),
        removed => removed.map(drop),
    }
}

/// Our chains of a table of that name, and the table itself where there is nothing else in it.
fn removal((family, in_use): &(u8, usize), chains: &[(u8, Vec<u8>)]) -> Vec<Request> {
    let request = |kind, attributes| Request { kind, family: *family, attributes };
    let table = [NAME.as_bytes(), &[0]].concat();
    let ours = chains.iter().filter(|(of, _)| of == family);
    let mut requests: Vec<_> = ours
        .map(|(_, name)| {
            request(
                DELETE_CHAIN,
                [encoded(base_chains::TABLE, &table), encoded(base_chains::NAME, name)].concat(),
            )
        })
        .collect();
    if !requests.is_empty() && requests.len() == *in_use {
        requests.push(request(DELETE_TABLE, encoded(TABLE_NAME, &table)));
    }
    requests
}

/// The family of a table of that name, and how many chains, sets and so on it has.
fn table(payload: &[u8]) -> Option<(u8, usize)> {
    let (family, attributes) = within(payload, TABLE_NAME)?;
    let in_use = attribute(attributes, TABLE_USE).and_then(number)?;
    Some((family, usize::try_from(in_use).ok()?))
}

/// Family and name of a chain of ours in which no rules are left.
fn chain(payload: &[u8]) -> Option<(u8, Vec<u8>)> {
    let (family, attributes) = within(payload, base_chains::TABLE)?;
    let name = attribute(attributes, base_chains::NAME)?;
    let is_ours = text(name).is_some_and(|name| CHAINS.contains(&name));
    let is_empty = attribute(attributes, CHAIN_USE).and_then(number) == Some(0);
    (is_ours && is_empty).then(|| (family, name.to_owned()))
}

/// Family and attributes of an answer about a table of that name.
fn within(payload: &[u8], table: u16) -> Option<(u8, &[u8])> {
    let (header, attributes) = payload.split_at_checked(4)?;
    let has_name = attribute(attributes, table).and_then(text) == Some(NAME);
    let has_family = [libc::AF_INET, libc::AF_INET6].contains(&header[0].into());
    (has_name && has_family).then_some((header[0], attributes))
}

fn name_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn chain_of(rule: &Rule) -> String {
    format!("{}_{}", rule.table, rule.chain)
}

/// At the place at which iptables has it.
fn add_chain(family: &str, rule: &Rule) -> Value {
    let priority = match (rule.table.as_str(), rule.chain.as_str()) {
        ("nat", "POSTROUTING") => 100,
        ("nat", _) => -100,
        _ => 0,
    };
    json!({ "add": { "chain": {
        "family": family, "table": NAME, "name": chain_of(rule), "type": rule.table,
        "hook": rule.chain.to_lowercase(), "prio": priority, "policy": "accept"
    } } })
}
