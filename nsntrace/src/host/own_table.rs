//! A table of ours, where there is no iptables whose chains the rules would go into. Runs share it: their rules stand in it
//! as they would in those chains.
//!
//! What it lets pass the chains of others may still drop, as everywhere in nftables: rules are put there too.

use serde_json::{Value, json};

use super::{
    bridges,
    nat::{Family, Rule},
    netfilter::{self, DELETE_TABLE, GET_TABLES, Request, attribute, encoded, text},
    nft,
};
use crate::error::{Error, Result};

/// What it is called, in each family.
pub const NAME: &str = "nsntrace";

/// The attribute of a table that has its name.
const TABLE_NAME: u16 = 1;

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

/// Takes the table away, in both families, with all that is in it.
///
/// # Errors
/// As [`netfilter::change`].
pub fn remove() -> Result<()> {
    netfilter::change(GET_TABLES, ours, |families| {
        let name = encoded(TABLE_NAME, &[NAME.as_bytes(), &[0]].concat());
        let delete = |family| Request { kind: DELETE_TABLE, family, attributes: name.clone() };
        families.into_iter().map(delete).collect()
    })
    .map(drop)
}

/// The family, if the kernel's answer is about a table of ours.
fn ours(payload: &[u8]) -> Option<u8> {
    let (header, table) = payload.split_at_checked(4)?;
    let is_ours = attribute(table, TABLE_NAME).and_then(text) == Some(NAME);
    let has_family = [libc::AF_INET, libc::AF_INET6].contains(&header[0].into());
    (is_ours && has_family).then_some(header[0])
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
