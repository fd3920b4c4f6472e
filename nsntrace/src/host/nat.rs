//! The rules that carry the program's packets between its link and the world, as one plan.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::{
    bridges,
    link::OUTER,
    own_rules::Owner,
    resolver::relay::Ports,
    run_id::{OURS, RunId},
};
use crate::subnet::Subnet;

/// What follows in that of a rule that runs share, and then where it is for.
const GUARD: &str = "guard-";

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
        let spec = format!("{matches} -m comment --comment {OURS}{owner} -j {target}");
        Self { family, table: table.into(), chain: chain.into(), spec }
    }

    /// The packet filter that it belongs to.
    pub fn family(&self) -> Family {
        self.family
    }

    /// By whom it is told from the rules of others, and of other runs.
    pub(super) fn owner(&self) -> Owner {
        Owner { comment: comment(&self.spec).unwrap_or_default().to_owned(), family: Some(self.family) }
    }

    /// Of a rule by which the program's packets are forwarded, what is the same where nobody knows yet where they go to. Some
    /// chains protect what listens on the host's loopback: it is none of theirs.
    pub(super) fn on_arrival(&self) -> Option<Self> {
        let is_meant = self.chain == "FORWARD" && self.spec.starts_with("-i ");
        let loopback = if self.family == Family::V4 { "127.0.0.0/8" } else { "::1" };
        let spec = self.spec.replace(&not_to_other_runs(), &format!(" ! -d {loopback}"));
        is_meant.then(|| Self { chain: "PREROUTING".into(), spec, ..self.clone() })
    }

    /// A rule of all runs: it keeps the host's forwarding to them, and does not keep what is not forwarded.
    pub(super) fn guard(family: Family, matches: &str, place: &str) -> Self {
        let rule = |matches: &str| {
            Self::new(family, "filter", "FORWARD", matches, format_args!("{GUARD}{place}"), "DROP")
        };
        if bridges::are_filtered() { rule(&format!("{matches} {}", bridges::ROUTED)) } else { rule(matches) }
    }

    /// Whether it is for what is routed, and not for what passes a bridge.
    pub(super) fn asks_whether_routed(&self) -> bool {
        self.spec.contains(bridges::ROUTED)
    }

    /// What it is where there is no bridge.
    pub(super) fn spec_without_bridges(&self) -> String {
        self.spec.replace(&format!(" {}", bridges::ROUTED), "")
    }

    /// Whether runs share it.
    pub(super) fn is_shared(&self) -> bool {
        self.spec.contains(&format!("{OURS}{GUARD}"))
    }

    /// Whether it is a rule that a run makes.
    pub(super) fn is_ours(&self) -> bool {
        let is_a_line = |text: &str| !text.contains(char::is_control);
        matches!(self.table.as_str(), "nat" | "filter")
            && is_a_line(&self.chain)
            && is_a_line(&self.spec)
            && self.owner().comment.starts_with(OURS)
    }
}

/// The comment in a rule as iptables takes it, or prints it.
pub(super) fn comment(rule: &str) -> Option<&str> {
    rule.split(' ').skip_while(|word| *word != "--comment").nth(1)
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
        rule("filter", "FORWARD", &format!("-i {link}{}", not_to_other_runs()), "ACCEPT"),
    ]
}

fn not_to_other_runs() -> String {
    format!(" ! -o {OUTER}+")
}

/// The rules of a run whose name look-ups are relayed: port 53 of the gateway is where the relay listens, and no firewall
/// of the host keeps the program out.
pub fn relayed(link: &str, gateway: IpAddr, ports: Ports, id: RunId) -> Vec<Rule> {
    let rules = |(protocol, port)| {
        let to_gateway = format!("-i {link} -d {gateway} -p {protocol} --dport");
        let target = format!("DNAT --to-destination {}", SocketAddr::new(gateway, port));
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
    let target = format!("DNAT --to-destination {}", SocketAddr::new(server, 53));
    let asked = |protocol| rule("OUTPUT", &format!("-d 127.0.0.1 -p {protocol} --dport 53"), &target);
    vec![asked("udp"), asked("tcp"), rule("POSTROUTING", "-s 127.0.0.1 ! -o lo", "MASQUERADE")]
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
