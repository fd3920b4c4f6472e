//! The host's name servers, and the way to them from the namespace.

pub(crate) mod exchange;
pub mod relay;
pub mod resolv_conf;
mod tcp;
mod udp;
mod upstreams;

use std::{
    fs::File,
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::Path,
};

use resolv_conf::ResolvConf;

/// Where the resolver's configuration is.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A configuration is some hundred bytes long; what is beyond this is not read.
const MAX_BYTES: u64 = 64 << 10;

/// Quad9, Cloudflare, Google and OpenDNS.
pub const PUBLIC: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)),
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V4(Ipv4Addr::new(208, 67, 222, 222)),
];

/// The host's configuration; where there is none, that of an empty file.
pub fn configuration() -> ResolvConf {
    let mut bytes = Vec::new();
    let read = File::open(RESOLV_CONF).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    ResolvConf::parse(&read.map(|_| String::from_utf8_lossy(&bytes)).unwrap_or_default())
}

/// Whether there is a file or a link of that name, be it one that leads nowhere.
pub fn has_file() -> bool {
    !Path::new(RESOLV_CONF).symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Whether the program would not get at every name server by itself. `has_family` says whether the namespace has
/// addresses of that kind.
pub fn needs_relay(configuration: &ResolvConf, has_family: impl Fn(IpAddr) -> bool) -> bool {
    configuration.servers.iter().map(|server| server.address).any(|address| {
        !has_family(address) || address.is_loopback() || is_link_local(address) || is_own(address)
    })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether it is an address of this host. The program's packets could come to it, but a server there may answer the
/// host alone, and a firewall may keep them out: on the host itself neither matters.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_only_the_host_reaches() {
        for (servers, expected) in [
            ("nameserver 192.0.2.53", false),
            ("nameserver 127.0.0.53", true),
            ("nameserver 192.0.2.53\nnameserver 127.0.0.1", true),
            ("nameserver 169.254.1.1", true),
            ("nameserver ::1", true),
            ("nameserver fe80::1%eth0", true),
            ("nameserver 2001:db8::53", true),
            ("nameserver 0.0.0.0", true),
            ("", true),
        ] {
            let configuration = ResolvConf::parse(servers);
            assert_eq!(needs_relay(&configuration, |address| address.is_ipv4()), expected, "{servers}");
        }
    }
}
