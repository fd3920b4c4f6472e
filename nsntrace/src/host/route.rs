//! The host's routes, as the kernel tells them.

pub mod survey;
pub mod table;

use std::{cmp::Reverse, net::IpAddr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle,
    packet_route::{
        AddressFamily,
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags, RouteType,
        },
    },
};

use crate::{
    error::{Context, Result},
    netlink,
};

/// Whether the device has a route in IPv6 that leads beyond its own link.
///
/// # Errors
/// Where netlink does not answer.
pub fn has_ipv6(device: &str) -> Result<bool> {
    netlink::with(async |handle: &Handle| {
        let index = netlink::link(handle, device).await?.header.index;
        let routes = dump(handle, AddressFamily::Inet6).await?;
        Ok(routes.into_iter().filter_map(|route| by_device(route, index)).any(|route| is_wide(&route)))
    })
}

async fn dump(handle: &Handle, family: AddressFamily) -> Result<Vec<RouteMessage>> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    handle.route().get(request).execute().try_collect().await.context("read", "the routing tables")
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address: IpAddr = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some((*address).into()),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

/// What the kernel prefers comes first: the longer prefix, then the lower metric.
fn preference(route: &RouteMessage) -> (Reverse<u8>, u32) {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    (Reverse(route.header.destination_prefix_length), metric.unwrap_or(0))
}

fn devices(route: &RouteMessage) -> Vec<u32> {
    let mut indices = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => indices.push(*index),
            RouteAttribute::MultiPath(hops) => indices.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    indices
}

/// The route of the main table, if it leads by that device: of several ways the one by it.
fn by_device(mut route: RouteMessage, index: u32) -> Option<RouteMessage> {
    if route.header.kind != RouteType::Unicast || table_of(&route) != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let hops = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops.clone()),
        _ => None,
    });
    if let Some(hop) = hops.and_then(|hops| hops.into_iter().find(|hop| hop.interface_index == index)) {
        route.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::MultiPath(_)));
        route.attributes.extend(hop.attributes);
        route.attributes.push(RouteAttribute::Oif(index));
        if hop.flags.contains(RouteNextHopFlags::Onlink) {
            route.header.flags |= RouteFlags::Onlink;
        }
    }
    (devices(&route) == [index]).then_some(route)
}

fn table_of(route: &RouteMessage) -> u32 {
    let wide = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    wide.unwrap_or_else(|| u32::from(route.header.table))
}

/// Whether it leads beyond what is on the device's own link anyway.
fn is_wide(route: &RouteMessage) -> bool {
    match destination(route) {
        Some(IpNet::V6(net)) => {
            !net.addr().is_unicast_link_local() && !net.addr().is_multicast() && !net.addr().is_loopback()
        }
        _ => true,
    }
}
