//! The rules that bring what is sent to a published port of the host to the program.

use std::net::IpAddr;

use super::{
    localnet::loopback,
    nat::{Family, Rule},
    run_id::RunId,
};
use crate::{
    publish::{Publish, Transport},
    subnet::Subnet,
};

/// The rules for the ports of that subnet's family. To the program a connection comes from where it was opened; only
/// what comes from the host's loopback has to come from the gateway.
pub fn plan(link: &str, subnet: &Subnet, id: RunId, published: &[Publish]) -> Vec<Rule> {
    let family = Family::of(subnet.inside);
    let mut rules: Vec<_> = published
        .iter()
        .flat_map(|publish| {
            let own = publish.addresses().into_iter().filter(move |host| Family::of(*host) == family);
            own.flat_map(|host| port(link, subnet, id, publish, host))
        })
        .collect();
    if !rules.is_empty() {
        let matches = format!("-s {} -o {link}", loopback(family));
        rules.push(Rule::new(family, "nat", "POSTROUTING", &matches, id, "MASQUERADE"));
    }
    rules
}

/// One port at one address of the host, or at all of a family.
fn port(link: &str, subnet: &Subnet, id: RunId, publish: &Publish, host: IpAddr) -> Vec<Rule> {
    let family = Family::of(host);
    let protocol = match publish.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let port = format!("-p {protocol} --dport {}", publish.port);
    let at = if host.is_unspecified() {
        format!("{port} -m addrtype --dst-type LOCAL")
    } else {
        format!("{port} -d {host}")
    };
    let target = match subnet.inside {
        IpAddr::V4(inside) => format!("DNAT --to-destination {inside}:{}", publish.port),
        IpAddr::V6(inside) => format!("DNAT --to-destination [{inside}]:{}", publish.port),
    };
    let allowed = format!("-o {link} {port} -m conntrack --ctstate DNAT");
    let mut rules = vec![
        Rule::new(family, "nat", "OUTPUT", &at, id, &target),
        Rule::new(family, "filter", "FORWARD", &allowed, id, "ACCEPT"),
    ];
    // A neighbour could send to a loopback address: the kernel looks at that only after this rule.
    if !host.is_loopback() {
        rules.push(Rule::new(family, "nat", "PREROUTING", &format!("! -i {link} {at}"), id, &target));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_at_loopback_is_not_for_others() {
        let subnet = Subnet {
            gateway: "fd00::".parse().expect("an address"),
            inside: "fd00::1".parse().expect("an address"),
            prefix_len: 127,
        };
        let rules = |text: &str| {
            let published = [text.parse().expect("valid")];
            plan("nsgw1", &subnet, "0000abcd".parse().expect("an id"), &published)
        };
        let to_others = |rules: &[Rule]| format!("{rules:?}").contains("PREROUTING");
        assert!(to_others(&rules("80")) && to_others(&rules("[2001:db8::1]:80")));
        assert!(!to_others(&rules("[::1]:80")) && !rules("[::1]:80").is_empty());
        assert_eq!(rules("127.0.0.1:80"), []);
    }
}
