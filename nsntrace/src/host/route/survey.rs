//! What the host's routing says of addresses and uplinks.

use std::net::{IpAddr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        route::{RouteHeader, RouteMessage, RouteType},
    },
};

use super::{destination, devices, dump, preference, table::FIRST_TABLE, table_of};
use crate::{
    error::{Context, Result},
    host::{device::Device, link::OUTER},
    netlink,
};

/// What the host's routing says.
#[derive(Debug, Default)]
pub struct Survey {
    /// Every address and every destination of a route, in all tables.
    pub taken: Vec<IpNet>,
    /// Devices of IPv4 default routes, the preferred one first.
    pub uplinks: Vec<Device>,
    /// The same for IPv6.
    pub uplinks6: Vec<Device>,
    /// These, and all others at which the host has an IPv4 address that is not loopback's, or a route to somewhere.
    pub inlets: Vec<Device>,
    /// The same for IPv6; addresses and routes that mean something on their link only do not count.
    pub inlets6: Vec<Device>,
}

impl Survey {
    /// Reads addresses and routes.
    ///
    /// # Errors
    /// Where netlink does not answer.
    pub fn take() -> Result<Self> {
        netlink::with(async |handle: &Handle| {
            let mut routes = Vec::new();
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                routes.extend(dump(handle, family).await?);
            }
            let addresses = addresses(handle).await?;
            let mut taken: Vec<_> = addresses.iter().map(|(_, net)| net.trunc()).collect();
            taken.extend(routes.iter().filter_map(destination));
            let ways = default_devices(handle, &routes, AddressFamily::Inet).await?;
            let ways6 = default_devices(handle, &routes, AddressFamily::Inet6).await?;
            let with_others = |ways: &[u32], is_ipv4: bool| {
                let is_meant = |net: &IpNet| net.addr().is_ipv4() == is_ipv4 && is_reached(net);
                let own = addresses.iter().filter(|(_, net)| is_meant(net)).map(|(index, _)| *index);
                let leads = |route: &&RouteMessage| {
                    is_way(route) && destination(route).is_some_and(|net| is_meant(&net))
                };
                let leading = routes.iter().filter(leads).flat_map(devices);
                ways.iter().copied().chain(own).chain(leading).collect::<Vec<_>>()
            };
            let (all, all6) = (with_others(&ways, true), with_others(&ways6, false));
            Ok(Self {
                taken,
                uplinks: named(handle, ways).await?,
                uplinks6: named(handle, ways6).await?,
                inlets: named(handle, all).await?,
                inlets6: named(handle, all6).await?,
            })
        })
    }
}

/// The host's addresses with their networks, and by the numbers of their devices.
async fn addresses(handle: &Handle) -> Result<Vec<(u32, IpNet)>> {
    let messages: Vec<_> =
        handle.address().get().execute().try_collect().await.context("read", "the host's addresses")?;
    let net = |message: &AddressMessage| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => IpNet::new(*address, message.header.prefix_len).ok(),
            _ => None,
        })
    };
    Ok(messages.iter().filter_map(|message| Some((message.header.index, net(message)?))).collect())
}

/// Whether the route leads to others, and is not a run's.
fn is_way(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Unicast && table_of(route) < FIRST_TABLE
}

/// Whether others may reach the host at the address, or the host others there.
fn is_reached(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_multicast(),
        IpAddr::V6(address) => {
            !address.is_loopback() && !address.is_unicast_link_local() && !address.is_multicast()
        }
    }
}

/// Devices of the family's default routes, by metric. A VPN's pair of half-world routes counts as one.
async fn default_devices(
    handle: &Handle,
    routes: &[RouteMessage],
    family: AddressFamily,
) -> Result<Vec<u32>> {
    let mut ways: Vec<_> = routes
        .iter()
        .filter(|route| route.header.address_family == family && is_way(route))
        .filter(|route| route.header.destination_prefix_length <= 1)
        .flat_map(|route| devices(route).into_iter().map(|index| (preference(route), index)))
        .collect();
    ways.sort_unstable();
    let preferred = way_out(handle, family).await?;
    Ok(preferred.into_iter().chain(ways.into_iter().map(|(_, index)| index)).collect())
}

/// The devices of these numbers, each once, without loopback and the links of other runs.
async fn named(handle: &Handle, indices: Vec<u32>) -> Result<Vec<Device>> {
    let mut seen = Vec::new();
    let mut found: Vec<Device> = Vec::new();
    for index in indices {
        if seen.contains(&index) {
            continue;
        }
        seen.push(index);
        let link = handle.link().get().match_index(index).execute().try_next().await;
        let link = match link.context("look up", format_args!("the device {index}")) {
            // It went away meanwhile.
            Err(error) if error.errno() == Some(libc::ENODEV) => continue,
            link => link?,
        };
        let Some(link) = link else { continue };
        let is_meant = |name: &&str| *name != "lo" && !name.starts_with(OUTER);
        let Some(name) = netlink::name(&link).filter(is_meant) else { continue };
        found.push(Device::new(name, &link));
    }
    Ok(found)
}

/// The device by which the host would send to an address far away: one that is kept for documentation, and nothing is
/// sent there.
async fn way_out(handle: &Handle, family: AddressFamily) -> Result<Option<u32>> {
    let far = match family {
        AddressFamily::Inet6 => RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 128),
        _ => RouteMessageBuilder::<IpAddr>::new().destination_prefix(IpAddr::from([192, 0, 2, 1]), 32),
    };
    let mut question = far.context("ask for", "the way out")?.build();
    // It is a question and not a route.
    question.header = RouteHeader {
        address_family: family,
        destination_prefix_length: question.header.destination_prefix_length,
        ..RouteHeader::default()
    };
    match handle.route().get(question).execute().try_next().await.context("ask for", "the way out") {
        Ok(Some(answer)) => Ok(devices(&answer).first().copied()),
        Ok(None) => Ok(None),
        // No way, a way that ends in a black hole, or no such protocol on this host: the order stays that of the routes.
        Err(error) if error.errno().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}
