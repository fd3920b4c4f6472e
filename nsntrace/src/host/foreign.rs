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

/// Where in a chain packets are let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Above all else.
    Top,
    /// Above the rule of that handle: what stands before it may mark packets, or lead them elsewhere.
    Before(u64),
    /// Below all else.
    End,
}

/// Tables as nft lists them, each of which is asked for once.
#[derive(Default)]
pub struct Listings(Vec<(String, String, Vec<Value>)>);

impl Listings {
    fn of(&mut self, place: &Place) -> Result<&[Value]> {
        let Place { family, table, .. } = place;
        let known = self.0.iter().position(|(of, name, _)| (of, name) == (family, table));
        let number = match known {
            Some(number) => number,
            None => {
                let listed =
                    nft::run(&[json!({ "list": { "table": { "family": family, "name": table } } })])?;
                self.0.push((family.clone(), table.clone(), listed));
                self.0.len() - 1
            }
        };
        Ok(&self.0[number].2)
    }
}

/// Where packets have to be let pass if the chain, or one that it leads to, drops or rejects anything. What it would drop of a
/// trace only the packets themselves could tell.
///
/// # Errors
/// Where nft does not work: then nothing can be done about the chain either.
pub fn drops(chain: &BaseChain, listings: &mut Listings) -> Result<Option<Spot>> {
    let arrives = chain.hook == Hook::Prerouting;
    let table = Table { listed: listings.of(&chain.place)?, knows_way_back: arrives };
    let first = table.first_drop(&chain.place.name, &mut BTreeSet::new());
    Ok(match first.map(|rule| rule["handle"].as_u64().unwrap_or_default()) {
        Some(handle) if arrives => Some(Spot::Before(handle)),
        None if arrives => chain.policy_drops.then_some(Spot::End),
        first => (chain.policy_drops || first.is_some()).then_some(Spot::Top),
    })
}

/// A table as nft lists it.
struct Table<'a> {
    listed: &'a [Value],
    /// Whether what asks for the way back drops nothing: there is one to the program.
    knows_way_back: bool,
}

impl<'a> Table<'a> {
    /// The first rule of a chain from which a verdict can be reached that drops. `seen` are chains and maps that were
    /// looked at.
    fn first_drop(&self, chain: &'a str, seen: &mut BTreeSet<&'a str>) -> Option<&'a Value> {
        if !seen.insert(chain) {
            return None;
        }
        self.rules(chain).find(|rule| self.has_drop(&rule["expr"], seen))
    }

    fn rules(&self, chain: &'a str) -> impl Iterator<Item = &'a Value> {
        let rules = self.listed.iter().filter_map(|item| item.get("rule"));
        let asks_for_it = |rule: &Value| {
            let text = rule["expr"].to_string();
            text.contains("\"fib\"") || text.contains("\"rpfilter\"")
        };
        rules.filter(move |rule| rule["chain"] == chain && !(self.knows_way_back && asks_for_it(rule)))
    }

    fn has_drop(&self, part: &'a Value, seen: &mut BTreeSet<&'a str>) -> bool {
        match part {
            Value::Object(fields) => fields.iter().any(|(name, value)| match name.as_str() {
                "drop" | "reject" => true,
                "jump" | "goto" => {
                    value["target"].as_str().is_some_and(|chain| self.first_drop(chain, seen).is_some())
                }
                _ => self.has_drop(value, seen),
            }),
            Value::Array(parts) => parts.iter().any(|part| self.has_drop(part, seen)),
            Value::String(map) if map.starts_with('@') && seen.insert(map) => {
                let mut maps = self.listed.iter().filter_map(|item| item.get("map"));
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

/// Inserts the rules into the chain, all or none, with the name of their run as comment.
///
/// # Errors
/// What nft says: the chain's owner may be a process that lets nobody else change it.
pub fn insert(place: &Place, spot: Spot, rules: &[Rule], tag: &str) -> Result<()> {
    let Place { family, table, name } = place;
    let commands = rules.iter().map(|rule| {
        let expressions = nft::expressions(rule, family, &[])?;
        let mut rule = json!({
            "family": family, "table": table, "chain": name, "comment": tag, "expr": expressions
        });
        if let Spot::Before(handle) = spot {
            rule["handle"] = handle.into();
        }
        let command = if spot == Spot::End { "add" } else { "insert" };
        Some(json!({ command: { "rule": rule } }))
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
        let drops = |knows_way_back| {
            let table = Table { listed: &listed, knows_way_back };
            table.first_drop("begin", &mut BTreeSet::new()).is_some()
        };
        assert_eq!(drops(true), drops(false), "nobody asks for the way back");
        drops(false)
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
    fn first_rule_that_drops_is_found_without_who_asks_for_the_way_back() {
        let way_back =
            json!({ "match": { "op": "==", "left": { "fib": { "result": "oif" } }, "right": false } });
        let listed = [
            json!({ "rule": { "chain": "other", "handle": 1, "expr": [{ "drop": null }] } }),
            json!({ "rule": { "chain": "raw", "handle": 2, "expr": [{ "mangle": {} }] } }),
            json!({ "rule": { "chain": "raw", "handle": 3, "expr": [way_back, { "drop": null }] } }),
            json!({ "rule": { "chain": "raw", "handle": 4, "expr": [{ "jump": { "target": "other" } }] } }),
        ];
        let first = |knows_way_back| {
            let table = Table { listed: &listed, knows_way_back };
            table.first_drop("raw", &mut BTreeSet::new()).expect("it drops")["handle"].clone()
        };
        assert_eq!((first(false), first(true)), (3.into(), 4.into()));
    }

    #[test]
    fn what_only_accepts_is_left_alone() {
        let port = json!({ "payload": { "protocol": "tcp", "field": "dport" } });
        assert!(!begin_drops(json!({ "accept": null })));
        assert!(!begin_drops(json!({ "jump": { "target": "begin" } })));
        assert!(!begin_drops(json!({ "vmap": { "key": port, "data": "@open" } })));
    }
}
