//! IPv6 for the namespace: all of it or none, and to have none is no obstacle to a trace.

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;

use super::Ways;
use crate::{
    error::{Error, Result},
    host::{
        Changes,
        change::Change,
        forwarding6::{self, WholeHost},
        iptables,
        link::Names,
        nat::Family,
        route::{self, Device},
    },
    ipv6::{self, End},
    namespace::{inside, netns::Netns},
    subnet::{self, Subnet},
    words::Voice,
};

/// What there is of IPv6.
#[derive(Clone, Copy)]
pub struct Ipv6 {
    /// The link's addresses.
    pub subnet: Subnet,
    /// Whether the device of `-d` leads beyond its own networks.
    pub leads_out: bool,
}

/// Gives the link IPv6: addresses that overlap nothing in `taken`, forwarding, and the way out of `-d`; the rules are
/// left to be inserted.
///
/// # Errors
/// Where one of it cannot be had. [`do_without`] is to follow then.
pub fn join(
    changes: &mut Changes,
    netns: &Netns,
    names: &Names,
    ways: &Ways<'_>,
    taken: &[IpNet],
    voice: Voice,
) -> Result<Ipv6> {
    ipv6::check(ways.mtu)?;
    iptables::check(Family::V6)?;
    let subnet = subnet::free_ipv6(taken, || fastrand::u128(..))
        .ok_or_else(|| Error::told("the host's routes cover all unique local addresses"))?;
    let Subnet { gateway, inside, prefix_len } = subnet;
    let outer = End { link: &names.outer, own: gateway, peer: inside, peer_mac: names.inner_mac, prefix_len };
    let inner = End { link: &names.inner, own: inside, peer: gateway, peer_mac: names.outer_mac, prefix_len };
    ipv6::switch_on(outer)?;
    inside::configure_ipv6(netns, inner)?;

    let inlets = match ways.only_by {
        Some((device, _)) if route::has_ipv6(&device.name)? => std::slice::from_ref(device),
        Some(_) => &[],
        None => ways.inlets6,
    };
    forward(changes, &names.outer, inlets, voice)?;
    let leads_out = match ways.only_by {
        Some((device, table)) => route::only_by(AddressFamily::Inet6, &device.name, &names.outer, table)?,
        None => true,
    };
    Ok(Ipv6 { subnet, leads_out })
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

/// Waits until the link says nothing of itself any more.
///
/// # Errors
/// Where the namespace cannot be entered.
pub fn settle(netns: &Netns, names: &Names) -> Result<()> {
    ipv6::settle(&names.outer);
    netns.run(|| {
        ipv6::settle(&names.inner);
        Ok(())
    })
}

/// Lets the host forward between the link and the inlets, if it does not. Without any nothing is to be forwarded.
///
/// # Errors
/// Where it cannot be switched on.
pub fn forward(changes: &mut Changes, link: &str, inlets: &[Device], voice: Voice) -> Result<()> {
    let can_force = forwarding6::allow(link);
    let host = WholeHost::now()?;
    let whole = Change::Forwarding6(host.clone());
    let is_shared = changes.share(&whole)?;
    if forwarding6::is_router()? || inlets.is_empty() {
        return Ok(());
    }
    if is_shared {
        return host.switch_on();
    }
    if can_force && inlets.iter().try_for_each(|device| force(changes, &device.name, voice)).is_ok() {
        return Ok(());
    }
    changes.make(whole, || host.switch_on())?;
    voice.forwarding(format_args!("IPv6 forwarding"));
    Ok(())
}

fn force(changes: &mut Changes, device: &str, voice: Voice) -> Result<()> {
    let change = Change::ForceForwarding { device: device.to_owned() };
    let is_shared = changes.share(&change)?;
    if forwarding6::is_forced(device)? {
        return Ok(());
    }
    if is_shared {
        return forwarding6::force(device);
    }
    changes.make(change, || forwarding6::force(device))?;
    voice.forwarding(format_args!("IPv6 forwarding on {device}"));
    Ok(())
}
