//! IPv6 on an end of the link: at once, and without a packet.
//!
//! An end as the kernel makes it asks whether its address is taken, looks for routers and for its neighbour, and tells
//! of its multicast groups again and again: that takes a second, and would stand in the trace. Between two ends that
//! know each other none of it is needed.

use std::{
    fs,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use rtnetlink::{
    Handle,
    packet_route::{address::AddressHeaderFlags, neighbour::NeighbourState},
};

use crate::{
    error::{Context, Error, Result},
    netlink, sysctl,
};

/// The least MTU that IPv6 takes, in bytes.
const LEAST_MTU: u32 = 1280;

/// What keeps an end quiet. A group that is joined is told of at once, and again after a random time of up to so many
/// milliseconds: 23 days, and nobody on the link listens.
const QUIET: [(&str, &str); 3] =
    [("accept_ra", "0"), ("addr_gen_mode", "1"), ("mldv2_unsolicited_report_interval", "2000000000")];

/// The count of what an end has told of its groups, and that of what has come to it.
const REPORTS: &str = "Icmp6OutMLDv2Reports";
const RECEIVED: &str = "Ip6InReceives";

/// How often is looked for a report. It comes some ten milliseconds after the address.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// An end of the link.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Name of the device.
    pub link: &'a str,
    /// Its address.
    pub own: IpAddr,
    /// The other end's address.
    pub peer: IpAddr,
    /// The other end's hardware address.
    pub peer_mac: [u8; 6],
    /// Length of the addresses' common prefix.
    pub prefix_len: u8,
}

/// Whether this host has IPv6, for links of this MTU.
///
/// # Errors
/// Says why not.
pub fn check(mtu: u32) -> Result<()> {
    let Ok(disabled) = sysctl::get("ipv6/conf/all/disable_ipv6") else {
        return Err(Error::told("this kernel has none"));
    };
    if disabled != "0" {
        return Err(Error::told("it is switched off on this host (net.ipv6.conf.all.disable_ipv6)"));
    }
    if mtu < LEAST_MTU {
        return Err(Error::told(format!(
            "the MTU of the way out is {mtu} bytes, and IPv6 needs {LEAST_MTU} at least"
        )));
    }
    Ok(())
}

/// Keeps IPv6 off a link: one that is not up yet is not announced then. On a kernel without IPv6 there is nothing to switch
/// off.
pub fn switch_off(link: &str) {
    let _ = set(link, "disable_ipv6", "1");
}

/// Switches IPv6 on for a link that is up, in the namespace of the calling thread, and gives it its address. When it
/// returns the address is usable.
///
/// # Errors
/// Where a setting cannot be written, or the kernel refuses the address or the neighbour.
pub fn switch_on(end: End<'_>) -> Result<()> {
    let End { link, own, peer, peer_mac, prefix_len } = end;
    for (name, value) in QUIET {
        set(link, name, value)?;
    }
    set(link, "disable_ipv6", "0")?;
    netlink::with(async |handle: &Handle| {
        let index = netlink::link(handle, link).await?.header.index;
        let mut address = handle.address().add(index, own, prefix_len);
        address.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        address.execute().await.context("give an IPv6 address to", format_args!("link {link}"))?;
        // Also where a firewall keeps the two from finding each other.
        let neighbour = handle.neighbours().add(index, peer).state(NeighbourState::Permanent);
        let neighbour = neighbour.link_layer_address(&peer_mac).execute().await;
        neighbour.context("make known", format_args!("the other end of link {link}"))
    })
}

/// Waits until an end has told of the group that belongs to its address, and has got what the other end has told: the kernel
/// cannot be kept from that, and it should not stand in the trace. An end with IPv6 switched off has nothing to tell. In the
/// namespace of the calling thread.
pub fn settle(link: &str, deadline: Instant) {
    if sysctl::get(&format!("ipv6/conf/{link}/disable_ipv6")).is_ok_and(|disabled| disabled != "0") {
        return;
    }
    until(deadline, || [REPORTS, RECEIVED].into_iter().all(|name| count(link, name) != Some(0)));
}

/// What an end has told of its groups so far; none where there is no IPv6. In the namespace of the calling thread.
pub fn reports(link: &str) -> Option<u64> {
    count(link, REPORTS)
}

/// Waits until an end has told more than that, as it does when the host becomes a router. In the namespace of the calling
/// thread.
pub fn settle_again(link: &str, told: Option<u64>, deadline: Instant) {
    until(deadline, || reports(link) != told || told.is_none());
}

fn until(deadline: Instant, is_so: impl Fn() -> bool) {
    while !is_so() && Instant::now() < deadline {
        thread::sleep(LOOK_EVERY);
    }
}

/// What the kernel has counted of an end.
fn count(link: &str, name: &str) -> Option<u64> {
    let counters = fs::read_to_string(format!("/proc/thread-self/net/dev_snmp6/{link}")).ok()?;
    counters.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

fn set(link: &str, name: &str, value: &str) -> Result<()> {
    let setting = format!("ipv6/conf/{link}/{name}");
    sysctl::set(&setting, value).context("write the setting", setting)
}
