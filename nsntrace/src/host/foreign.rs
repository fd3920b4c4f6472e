//! Chains of other firewalls. What one chain accepts another may still drop: where one drops packets, they are accepted
//! on top of that very chain, and nothing else of it is touched.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    base_chains::{self, BaseChain, Hook, Place},
    link,
    nat::{Family, Rule},
    nft, own_table,
    packet_filter::{self, Carrier},
};
use crate::error::{Error, Result};

/// The chains that our rules are not in.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN, or where the kernel does not answer.
pub fn chains() -> Result<Vec<BaseChain>> {
    let carriers = [Family::V4, Family::V6].map(|family| packet_filter::find(family).ok());
    let mut chains = base_chains::all()?;
    chains.retain(|chain| !has_ours(&chain.place, carriers));
    Ok(chains)
}

fn has_ours(place: &Place, [carrier4, carrier6]: [Option<Carrier>; 2]) -> bool {
    let Place { family, table, name } = place;
    let carrier = match family.as_str() {
        "ip" => carrier4,
        "ip6" => carrier6,
        _ => None,
    };
    match carrier {
        Some(Carrier::Iptables) if table == "filter" => name == "INPUT" || name == "FORWARD",
        Some(_) => table == own_table::NAME,
        None => false,
    }
}

/// Whether the chain, or one that it leads to, drops or rejects anything. What it would drop of a trace only the packets
/// themselves could tell.
///
/// # Errors
/// Where nft does not work: then nothing can be done about the chain either.
pub fn drops(chain: &BaseChain) -> Result<bool> {
    let Place { family, table, name } = &chain.place;
    let listed = nft::run(&[json!({ "list": { "table": { "family": family, "name": table } } })])?;
    Ok(chain.policy_drops || Table(&listed).drops(name, &mut BTreeSet::new()))
}

/// A table as nft lists it.
struct Table<'a>(&'a [Value]);

impl<'a> Table<'a> {
    /// Whether a verdict that can be reached from the chain is one that drops. `seen` are chains and maps that were
    /// looked at.
    fn drops(&self, chain: &'a str, seen: &mut BTreeSet<&'a str>) -> bool {
        let rules = self.0.iter().filter_map(|item| item.get("rule")).filter(|rule| rule["chain"] == chain);
        seen.insert(chain) && rules.into_iter().any(|rule| self.has_drop(&rule["expr"], seen))
    }

    fn has_drop(&self, part: &'a Value, seen: &mut BTreeSet<&'a str>) -> bool {
        match part {
            Value::Object(fields) => fields.iter().any(|(name, value)| match name.as_str() {
                "drop" | "reject" => true,
                "jump" | "goto" => value["target"].as_str().is_some_and(|chain| self.drops(chain, seen)),
                _ => self.has_drop(value, seen),
            }),
            Value::Array(parts) => parts.iter().any(|part| self.has_drop(part, seen)),
            Value::String(map) if map.starts_with('@') && seen.insert(map) => {
                let mut maps = self.0.iter().filter_map(|item| item.get("map"));
                let map = maps.find(|found| found["name"] == map[1..]);
                map.is_some_and(|map| self.has_drop(&map["elem"], seen))
            }
            _ => false,
        }
    }
}

/// Those of the rules that let packets pass which this chain sees.
pub fn concerned(chain: &BaseChain, rules: &[Rule]) -> Vec<Rule> {
    let sees = |family| match chain.place.family.as_str() {
        "ip" => family == Family::V4,
        "ip6" => family == Family::V6,
        _ => true,
    };
    let passes = |rule: &&Rule| sees(rule.family) && rule.spec.ends_with("-j ACCEPT");
    let rules = rules.iter().filter(passes);
    match chain.hook {
        Hook::Prerouting => rules.filter_map(Rule::on_arrival).collect(),
        Hook::Input => rules.filter(|rule| rule.chain == "INPUT").cloned().collect(),
        Hook::Forward => rules.filter(|rule| rule.chain == "FORWARD").cloned().collect(),
    }
}

/// What else may help where rules cannot be put there: firewalld may keep others out of its chains, and its own tool lets
/// packets pass.
pub fn advice(place: &Place, error: Error) -> Error {
    if place.table != "firewalld" {
        return error;
    }
    Error::told(format!(
        "{error}; 'firewall-cmd --zone=trusted --add-interface={}+' lets them pass too",
        link::OUTER
    ))
}

/// Inserts the rules on top of the chain, all or none, with the name of their run as comment.
///
/// # Errors
/// What nft says: the chain's owner may be a process that lets nobody else change it.
pub fn insert(place: &Place, rules: &[Rule], tag: &str) -> Result<()> {
    let Place { family, table, name } = place;
    let commands = rules.iter().map(|rule| {
        let expressions = nft::expressions(rule, family, &[])?;
        Some(json!({ "insert": { "rule": {
            "family": family, "table": table, "chain": name, "comment": tag, "expr": expressions
        } } }))
    });
    let commands: Option<Vec<_>> = commands.collect();
    let commands = commands.ok_or_else(|| Error::told("nft has no words for a rule"))?;
    nft::run(&commands).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain `begin` with one rule, one `rejects`, and a map of ports.
    fn begin_drops(expression: Value) -> bool {
        let listed = [
            json!({ "rule": { "chain": "begin", "expr": [expression] } }),
            json!({ "rule": { "chain": "rejects", "expr": [{ "jump": { "target": "begin" } }, { "reject": null }] } }),
            json!({ "map": { "name": "ports", "elem": [[22, { "goto": { "target": "rejects" } }]] } }),
            json!({ "map": { "name": "open", "elem": [[22, { "accept": null }]] } }),
        ];
        Table(&listed).drops("begin", &mut BTreeSet::new())
    }

    #[test]
    fn every_way_to_a_drop_is_found() {
        let port = json!({ "payload": { "protocol": "tcp", "field": "dport" } });
        assert!(begin_drops(json!({ "drop": null })));
        assert!(begin_drops(json!({ "jump": { "target": "rejects" } })));
        assert!(begin_drops(json!({ "vmap": { "key": port, "data": "@ports" } })));
        assert!(begin_drops(json!({ "vmap": { "key": port, "data": { "set": [[22, { "drop": null }]] } } })));
    }

    #[test]
    fn what_only_accepts_is_left_alone() {
        let port = json!({ "payload": { "protocol": "tcp", "field": "dport" } });
        assert!(!begin_drops(json!({ "accept": null })));
        assert!(!begin_drops(json!({ "jump": { "target": "begin" } })));
        assert!(!begin_drops(json!({ "vmap": { "key": port, "data": "@open" } })));
    }
}
