//! What resolv.conf(5) says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

/// The port of name servers.
const PORT: u16 = 53;

/// The C library asks no more servers than these.
const MAX_SERVERS: usize = 3;

/// What is kept of the host's configuration besides its servers.
const KEPT: [&str; 4] = ["domain", "search", "sortlist", "options"];

/// A configuration of the resolver.
#[derive(Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The name servers, the one that is asked first at the front: at least one.
    pub servers: Vec<NameServer>,
    others: Vec<String>,
}

/// A name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer {
    /// Its address.
    pub address: IpAddr,
    /// The interface of a link-local address, by name or number.
    scope: Option<String>,
}

impl ResolvConf {
    /// Reads it as the C library does: keywords begin their line, and without a server there is one on this host. Addresses
    /// have all of their numbers.
    pub fn parse(text: &str) -> Self {
        let lines = || text.lines().map(|line| line.trim_end_matches('\r'));
        let mut servers: Vec<_> =
            lines().filter_map(|line| NameServer::parse(value(line, "nameserver")?)).collect();
        servers.truncate(MAX_SERVERS);
        if servers.is_empty() {
            servers.push(NameServer { address: Ipv4Addr::LOCALHOST.into(), scope: None });
        }
        let is_kept = |line: &&str| KEPT.iter().any(|keyword| value(line, keyword).is_some());
        Self { servers, others: lines().filter(is_kept).map(String::from).collect() }
    }

    /// The same configuration with other servers, as a file.
    pub fn with_servers(&self, servers: &[IpAddr]) -> String {
        let mut text = String::from("# By nsntrace, for the traced program.\n");
        let servers = servers.iter().map(|server| format!("nameserver {server}"));
        for line in servers.chain(self.others.iter().cloned()) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

impl NameServer {
    fn parse(value: &str) -> Option<Self> {
        let word = value.split([' ', '\t', '#', ';']).find(|word| !word.is_empty())?;
        let (address, scope) = match word.split_once('%') {
            Some((address, scope)) => (address, Some(scope.to_owned())),
            None => (word, None),
        };
        let address = match address.parse::<IpAddr>().ok()?.to_canonical() {
            // Nobody's address means this host.
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        Some(Self { address, scope })
    }

    /// Where it is asked; none while the interface that it names is not there.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match (self.address, &self.scope) {
            (IpAddr::V6(address), Some(scope)) => {
                let index = scope.parse().or_else(|_| if_nametoindex(scope.as_str())).ok()?;
                Some(SocketAddrV6::new(address, PORT, 0, index).into())
            }
            (address, _) => Some((address, PORT).into()),
        }
    }
}

/// What follows the keyword.
fn value<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    line.strip_prefix(keyword).filter(|rest| rest.starts_with([' ', '\t']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        ResolvConf::parse(text).servers.iter().map(|server| server.address.to_string()).collect()
    }

    #[test]
    fn servers_of_any_kind() {
        let text = "# nameserver 9.9.9.9\nsearch example.org\nnameserver 127.0.0.53\n\
                    nameserver\tfe80::1%lo # x\nnameservers 1.1.1.1\nnameserver nonsense\nnameserver ::#x\n";
        assert_eq!(addresses(text), ["127.0.0.53", "fe80::1", "::1"]);
        let asked: Vec<_> = ResolvConf::parse(text).servers.iter().map(NameServer::socket_address).collect();
        let scoped = SocketAddrV6::new("fe80::1".parse().expect("an address"), 53, 0, 1);
        assert_eq!(
            asked,
            [Some(([127, 0, 0, 53], 53).into()), Some(scoped.into()), Some((Ipv6Addr::LOCALHOST, 53).into())]
        );
    }

    #[test]
    fn what_the_c_library_does_not_read() {
        assert_eq!(
            addresses(" nameserver 192.0.2.1\nnameserver192.0.2.2\n;nameserver 192.0.2.3"),
            ["127.0.0.1"]
        );
        assert_eq!(addresses(""), ["127.0.0.1"]);
        let four: String = (1..=4).map(|n| format!("nameserver 192.0.2.{n}\n")).collect();
        assert_eq!(addresses(&four), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(addresses("nameserver ::ffff:127.0.0.1\n"), ["127.0.0.1"]);
    }

    #[test]
    fn an_interface_that_is_not_there() {
        let servers = ResolvConf::parse("nameserver fe80::1%nosuch0\nnameserver fe80::1%7\n").servers;
        assert_eq!(servers[0].socket_address(), None);
        assert!(servers[1].socket_address().is_some());
    }

    #[test]
    fn lines_end_as_they_may() {
        let text = "nameserver 192.0.2.1\r\ndomain a.test\r\noptions ndots:2\r";
        assert_eq!(addresses(text), ["192.0.2.1"]);
        assert_eq!(
            ResolvConf::parse(text).with_servers(&[]),
            "# By nsntrace, for the traced program.\ndomain a.test\noptions ndots:2\n"
        );
    }

    #[test]
    fn everything_but_the_servers_is_kept() {
        let text = "# made by something\ndomain a.test\nnameserver ::1\nsearch b.test c.test\n\
                    options ndots:2\tedns0\nsortlist 10.0.0.0/8\nlookup file\noptions timeout:1\n";
        assert_eq!(
            ResolvConf::parse(text).with_servers(&[[192, 0, 2, 1].into()]),
            "# By nsntrace, for the traced program.\nnameserver 192.0.2.1\ndomain a.test\nsearch b.test c.test\n\
             options ndots:2\tedns0\nsortlist 10.0.0.0/8\noptions timeout:1\n"
        );
    }
}
