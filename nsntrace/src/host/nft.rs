//! The tool `nft`, spoken to in its JSON, which takes any name, while its own language has words that no name may be.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use serde_json::{Value, json};

use super::{
    lifeline,
    nat::{Family, Rule},
};
use crate::{
    error::{Context, Error, Result},
    words::one_line,
};

/// The tool.
pub const TOOL: &str = "nft";

/// Does all of it or nothing, and returns what was to be listed.
///
/// # Errors
/// Names the package where there is no nft, or what it says.
pub fn run(commands: &[Value]) -> Result<Vec<Value>> {
    let input = json!({ "nftables": commands }).to_string();
    let output = lifeline::run(Command::new(TOOL).args(["-j", "-f", "-"]), &input);
    let output = output.map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            Error::told("nft is needed for it and is not there: install the package nftables")
        }
        _ => Error::told(format!("nft cannot be run: {error}")),
    })?;
    if !output.status.success() {
        return Err(Error::told(format!("nft says: {}", one_line(&String::from_utf8_lossy(&output.stderr)))));
    }
    if output.stdout.is_empty() {
        return Ok(Vec::new());
    }
    let mut answer: Value = serde_json::from_slice(&output.stdout).context("read", "nft's answer")?;
    Ok(answer["nftables"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// A rule of iptables in nft's words, for a chain of that family, on a host with those bridges. None where it has words
/// that no rule of ours has.
pub fn expressions(rule: &Rule, family: &str, bridges: &[String]) -> Option<Vec<Value>> {
    let (protocol, ip) = match rule.family {
        Family::V4 => ("ipv4", "ip"),
        Family::V6 => ("ipv6", "ip6"),
    };
    let meta = |key: &str| json!({ "meta": { "key": key } });
    let mut found = Vec::new();
    if family == "inet" {
        found.push(matching("==", meta("nfproto"), protocol.into()));
    }
    let mut operator = "==";
    let mut transport = "";
    let mut words = rule.spec.split(' ');
    while let Some(word) = words.next() {
        if word == "!" {
            operator = "!=";
            continue;
        }
        if word == "--physdev-is-bridged" {
            operator = "==";
            found.extend(other_than_within(bridges));
            continue;
        }
        let value = words.next()?;
        let (operator, left) = (
            std::mem::replace(&mut operator, "=="),
            |protocol: &str, field: &str| json!({ "payload": { "protocol": protocol, "field": field } }),
        );
        found.push(match word {
            "-m" | "--comment" => continue,
            "-p" => {
                transport = value;
                matching("==", meta("l4proto"), value.into())
            }
            "-i" => matching(operator, meta("iifname"), device(value)),
            "-o" => matching(operator, meta("oifname"), device(value)),
            "-s" => matching(operator, left(ip, "saddr"), address(value)?),
            "-d" => matching(operator, left(ip, "daddr"), address(value)?),
            "--dport" => matching(operator, left(transport, "dport"), value.parse::<u16>().ok()?.into()),
            "--ctstate" if value == "DNAT" => {
                matching("in", json!({ "ct": { "key": "status" } }), "dnat".into())
            }
            "--ctstate" => {
                let states = value.to_lowercase().split(',').collect::<Value>();
                matching("in", json!({ "ct": { "key": "state" } }), states)
            }
            "--dst-type" => {
                let fib = json!({ "fib": { "result": "type", "flags": ["daddr"] } });
                matching(operator, fib, value.to_lowercase().into())
            }
            "-j" if value == "DNAT" => continue,
            "--to-destination" => destination(value)?,
            "-j" if ["ACCEPT", "DROP", "MASQUERADE"].contains(&value) => {
                json!({ value.to_lowercase(): null })
            }
            _ => return None,
        });
    }
    Some(found)
}

fn matching(operator: &str, left: Value, right: Value) -> Value {
    json!({ "match": { "op": operator, "left": left, "right": right } })
}

/// All but what leaves by the bridge that it came by: nft cannot ask what iptables does, whether it was routed there.
fn other_than_within(bridges: &[String]) -> Option<Value> {
    let both = |one: Value, other: Value| json!({ "concat": [one, other] });
    let within: Vec<_> =
        bridges.iter().map(|name| both(name.as_str().into(), name.as_str().into())).collect();
    let ways = both(json!({ "meta": { "key": "iifname" } }), json!({ "meta": { "key": "oifname" } }));
    (!within.is_empty()).then(|| matching("!=", ways, json!({ "set": within })))
}

/// Each writes names that begin so in its own way.
fn device(name: &str) -> Value {
    name.strip_suffix('+').map_or(name.into(), |start| format!("{start}*").into())
}

/// An address, alone or with a port.
fn destination(text: &str) -> Option<Value> {
    match text.parse::<SocketAddr>() {
        Ok(both) => Some(json!({ "dnat": { "addr": both.ip().to_string(), "port": both.port() } })),
        Err(_) => Some(json!({ "dnat": { "addr": text.parse::<IpAddr>().ok()?.to_string() } })),
    }
}

fn address(text: &str) -> Option<Value> {
    match text.split_once('/') {
        None => Some(text.into()),
        Some((address, length)) => {
            let length = length.parse::<u8>().ok()?;
            Some(json!({ "prefix": { "addr": address, "len": length } }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::{localnet, nat, published, resolver::relay::Ports, run_id::RunId},
        subnet::Subnet,
    };

    #[test]
    fn there_are_words_for_each_rule() {
        let id: RunId = "0000abcd".parse().expect("an id");
        for (gateway, inside) in [("172.16.42.254", "172.16.42.255"), ("fd00::", "fd00::1")] {
            let address = |text: &str| text.parse().expect("an address");
            let subnet = Subnet { gateway: address(gateway), inside: address(inside), prefix_len: 31 };
            let mut rules = nat::plan("nsgw1", &subnet, id);
            rules.extend(nat::relayed("nsgw1", subnet.gateway, Ports { udp: 5353, tcp: 5354 }, id));
            rules.extend(localnet::plan("nsgw1", &subnet, id, true));
            rules.extend(published::plan("nsgw1", &subnet, id, &["80/udp".parse().expect("valid")]));
            assert!(rules.iter().all(|rule| expressions(rule, "ip", &[]).is_some()), "{rules:?}");
            let passing: Vec<_> = rules.iter().filter(|rule| rule.spec.ends_with("-j ACCEPT")).collect();
            assert_eq!(passing.len(), 6);
            for rule in passing {
                let words = expressions(rule, "inet", &[]).unwrap_or_else(|| panic!("no words for {rule:?}"));
                assert_eq!(words.last(), Some(&json!({ "accept": null })));
                assert_eq!(expressions(rule, "ip", &[]).map(|words| words.len()), Some(words.len() - 1));
            }
        }
    }
}
