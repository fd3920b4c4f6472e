//! IPv6 for the namespace: all of it or none, and to have none is no obstacle to a trace.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;

use super::forward::{self, Switch};
use crate::{
    error::{Error, Result},
    host::{Changes, link::Names, nat::Family, packet_filter, route, ways::Ways},
    ipv6::{self, End},
    namespace::{inside, netns::Netns},
    subnet::{self, Subnet},
    words::Voice,
};

/// So long the link is waited for: somebody may keep it from saying anything.
const PATIENCE: Duration = Duration::from_millis(500);

/// What there is of IPv6.
#[derive(Clone, Copy)]
pub struct Ipv6 {
    /// The link's addresses.
    pub subnet: Subnet,
    /// Whether the device of `-d` leads beyond its own networks.
    pub leads_out: bool,
}

/// Gives the link IPv6: addresses that overlap nothing in `taken`, and the way out of `-d`. Rules are left to be inserted,
/// and then the switches to be turned on.
///
/// # Errors
/// Where one of it cannot be had. [`do_without`] is to follow then.
pub fn join(
    changes: &mut Changes,
    netns: &Netns,
    names: &Names,
    ways: &Ways<'_>,
    taken: &[IpNet],
) -> Result<(Ipv6, Vec<Switch>)> {
    ipv6::check(ways.mtu)?;
    packet_filter::find(Family::V6)?;
    let subnet = subnet::free_ipv6(taken, || fastrand::u128(..))
        .ok_or_else(|| Error::told("the host's routes cover all unique local addresses"))?;
    let Subnet { gateway, inside, prefix_len } = subnet;
    let outer = End { link: &names.outer, own: gateway, peer: inside, peer_mac: names.inner_mac, prefix_len };
    let inner = End { link: &names.inner, own: inside, peer: gateway, peer_mac: names.outer_mac, prefix_len };
    ipv6::switch_on(outer)?;
    inside::configure_ipv6(netns, inner)?;

    let switches = forward::ipv6(changes, &names.outer, ways.inlets6()?)?;
    let leads_out = match ways.only_by {
        Some((device, table)) => {
            route::table::only_by(AddressFamily::Inet6, &device.name, &names.outer, table)?
        }
        None => true,
    };
    Ok((Ipv6 { subnet, leads_out }, switches))
}

/// Takes IPv6 off the link, and says why.
pub fn do_without(netns: &Netns, names: &Names, reason: &Error, voice: Voice) {
    ipv6::switch_off(&names.outer);
    // Where the namespace cannot be entered nothing else of the trace succeeds either.
    let _ = netns.run(|| {
        ipv6::switch_off(&names.inner);
        Ok(())
    });
    voice.no_ipv6(reason);
}

/// Turns switches on. Where that makes the host a router, the link's end tells of groups once more, and that is waited for.
///
/// # Errors
/// Where a setting cannot be written.
pub(super) fn turn_on(netns: &Netns, names: &Names, switches: &[Switch], voice: Voice) -> Result<()> {
    let turn_on = || switches.iter().try_for_each(|switch| switch.turn_on(voice));
    if !switches.iter().any(Switch::is_of_host) {
        return turn_on();
    }
    settle(netns, names)?;
    let told = ipv6::reports(&names.outer);
    turn_on()?;
    ipv6::settle_again(&names.outer, told, Instant::now() + PATIENCE);
    Ok(())
}

/// Waits until the link says nothing of itself any more.
///
/// # Errors
/// Where the namespace cannot be entered.
pub fn settle(netns: &Netns, names: &Names) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    ipv6::settle(&names.outer, deadline);
    netns.run(|| {
        ipv6::settle(&names.inner, deadline);
        Ok(())
    })
}
