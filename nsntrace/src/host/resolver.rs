//! The host's name servers.

use std::net::IpAddr;

/// Where the resolver's configuration is.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The host's name servers; none where they are not configured.
pub fn name_servers() -> Vec<IpAddr> {
    parse(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default())
}

/// See resolv.conf(5). An address may name its interface, as in `fe80::1%eth0`.
fn parse(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| rest.split_whitespace().next()?.split('%').next()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_any_kind() {
        let text = "# nameserver 9.9.9.9\nsearch example.org\nnameserver 127.0.0.53\n\
                    nameserver\tfe80::1%eth0 # x\nnameservers 1.1.1.1\nnameserver nonsense\n";
        let expected: [IpAddr; 2] = [[127, 0, 0, 53].into(), "fe80::1".parse().expect("an address")];
        assert_eq!(parse(text), expected);
    }
}
