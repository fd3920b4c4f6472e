//! Which addresses the link gets. In IPv4 those of the original if they are free, else others from the private ranges;
//! in IPv6 unique local ones, whose range is so wide that any are as good as free.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The two addresses of a point-to-point link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// The host's end, the program's way out.
    pub gateway: IpAddr,
    /// The program's end.
    pub inside: IpAddr,
    /// Length of their common prefix: 31 in IPv4, 127 in IPv6.
    pub prefix_len: u8,
}

/// The original's pair.
const FIRST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 42, 254), 31);

/// RFC 1918, the range that fewest networks use first; then RFC 2544, for who has routed all of those, into a VPN say.
const PRIVATE: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
];

/// How often each range is tried: one with a free quarter is missed once in 10^125.
const TRIES: usize = 1000;

/// A pair that overlaps nothing in `taken`. Prefixes of a single bit or none do not count: they are default routes.
/// `random` draws a number below its argument.
///
/// Returns none where the private ranges are as good as full.
pub fn free(taken: &[IpNet], mut random: impl FnMut(u32) -> u32) -> Option<Subnet> {
    let taken: Vec<_> = taken
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(net) if net.prefix_len() > 1 => Some(*net),
            _ => None,
        })
        .collect();
    let is_free = |pair: &Ipv4Net| !taken.iter().any(|net| net.contains(pair) || pair.contains(net));

    let others = PRIVATE.iter().flat_map(|range| {
        let pairs = 1 << (31 - range.prefix_len());
        std::iter::repeat_with(move || (range, pairs)).take(TRIES)
    });
    let pair = [FIRST]
        .into_iter()
        .find(|first| is_free(first))
        .or_else(|| others.map(|(range, pairs)| nth_pair(range, random(pairs))).find(is_free))?;
    Some(subnet(pair))
}

/// An IPv6 pair that overlaps nothing in `taken`: a /127 below a random prefix of RFC 4193. `random` draws any number.
///
/// Routes for the whole range of unique local addresses do not count: they say of none that it is in use.
///
/// Returns none where no pair is free.
pub fn free_ipv6(taken: &[IpNet], mut random: impl FnMut() -> u128) -> Option<Subnet> {
    const WHOLE_RANGE: u8 = 8;
    let taken: Vec<_> = taken
        .iter()
        .filter_map(|net| match net {
            IpNet::V6(net) if net.prefix_len() > WHOLE_RANGE => Some(*net),
            _ => None,
        })
        .collect();
    let is_free = |pair: &Ipv6Net| !taken.iter().any(|net| net.contains(pair) || pair.contains(net));
    let pair = std::iter::repeat_with(|| unique_local(random())).take(TRIES).find(is_free)?;
    let inside = Ipv6Addr::from(u128::from(pair.network()) + 1);
    Some(Subnet { gateway: pair.network().into(), inside: inside.into(), prefix_len: 127 })
}

fn unique_local(random: u128) -> Ipv6Net {
    const FD: u128 = 0xfd << 120;
    Ipv6Net::new_assert(Ipv6Addr::from(FD | random >> 8 & !1), 127)
}

fn nth_pair(range: &Ipv4Net, n: u32) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from(u32::from(range.network()) + 2 * n), 31)
}

fn subnet(pair: Ipv4Net) -> Subnet {
    let gateway = pair.network();
    let inside = Ipv4Addr::from(u32::from(gateway) + 1);
    Subnet { gateway: gateway.into(), inside: inside.into(), prefix_len: 31 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    #[test]
    fn the_original_pair_comes_first() {
        let taken = nets(&["0.0.0.0/0", "128.0.0.0/1", "192.168.1.0/24", "fe80::/64"]);
        let subnet = free(&taken, |_| unreachable!("nothing to draw")).expect("free");
        assert_eq!(subnet.gateway, IpAddr::from([172, 16, 42, 254]));
        assert_eq!(subnet.inside, IpAddr::from([172, 16, 42, 255]));
        assert_eq!(subnet.prefix_len, 31);
    }

    #[test]
    fn an_overlap_of_any_size_moves_it() {
        for taken in
            ["172.16.42.254/31", "172.16.42.255/32", "172.16.0.0/12", "172.0.0.0/8", "172.16.42.0/24"]
        {
            let taken = nets(&[taken]);
            let mut random = fastrand::Rng::with_seed(7);
            let subnet = free(&taken, |below| random.u32(..below)).expect("free");
            let gateway: IpNet = format!("{}/32", subnet.gateway).parse().expect("a network");
            assert!(!taken[0].contains(&gateway), "{subnet:?} in {taken:?}");
        }
    }

    #[test]
    fn pairs_are_private_and_aligned() {
        let taken = nets(&["172.16.42.0/24"]);
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let IpAddr::V4(gateway) = free(&taken, |below| random.u32(..below)).expect("free").gateway else {
                panic!("not IPv4")
            };
            assert!(gateway.is_private() && u32::from(gateway) % 2 == 0, "{gateway}");
        }
        let last = free(&taken, |below| below - 1).expect("free");
        assert_eq!(last.inside, IpAddr::from([172, 31, 255, 255]));
    }

    #[test]
    fn ipv6_pairs_are_unique_local_and_aligned() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let subnet = free_ipv6(&[], || random.u128(..)).expect("free");
            let (IpAddr::V6(gateway), IpAddr::V6(inside)) = (subnet.gateway, subnet.inside) else {
                panic!("not IPv6")
            };
            assert_eq!(gateway.octets()[0], 0xfd);
            assert_eq!(u128::from(gateway) & 1, 0);
            assert_eq!(u128::from(gateway) + 1, u128::from(inside));
        }
    }

    #[test]
    fn an_overlap_moves_an_ipv6_pair() {
        let first = free_ipv6(&nets(&["fc00::/7", "fd00::/8"]), || 0).expect("routes for all do not count");
        assert_eq!(first.inside, "fd00::1".parse::<IpAddr>().expect("an address"));
        for taken in ["fd00::/48", "fd00::1/128"] {
            let mut numbers = [0, 1 << 100].into_iter();
            let moved = free_ipv6(&nets(&[taken]), || numbers.next().expect("two are enough"));
            assert_eq!(moved.map(|subnet| subnet.gateway), "fd00:0:1000::".parse().ok(), "{taken}");
        }
        assert_eq!(free_ipv6(&nets(&["fd00::/9"]), || 0), None);
    }

    #[test]
    fn full_ranges_are_told() {
        let mut taken = nets(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]);
        let last = free(&taken, |_| 0).expect("one more range");
        assert_eq!(last.inside, IpAddr::from([198, 18, 0, 1]));
        taken.extend(nets(&["198.18.0.0/15"]));
        assert_eq!(free(&taken, |_| 0), None);
    }
}
