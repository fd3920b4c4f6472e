//! The host's routing: what it says of addresses and uplinks, and a table of its own for `-d`.

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::AddressAttribute,
        link::LinkFlags,
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags,
            RouteProtocol, RouteScope, RouteType,
        },
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};
use std::net::{IpAddr, Ipv6Addr};

use super::link::OUTER;
use crate::{
    error::{Context, Result},
    netlink,
};

/// Tables of ours are numbered from here; the pid is added.
pub const FIRST_TABLE: u32 = 0x6e73_0000;

/// Place of our rules: after the host's own addresses, before whatever a VPN puts in.
const RULE_PRIORITY: u32 = 100;

/// The metric of a default route that we make: told, it is the same in both families.
const OWN_METRIC: u32 = 1024;

/// What the host's routing says.
#[derive(Debug, Default)]
pub struct Survey {
    /// Every address and every destination of a route, in all tables.
    pub taken: Vec<IpNet>,
    /// Devices of IPv4 default routes, the preferred one first.
    pub uplinks: Vec<Device>,
    /// The same for IPv6.
    pub uplinks6: Vec<Device>,
    /// These, and all others at which the host has an IPv4 address that is not loopback's.
    pub inlets: Vec<Device>,
    /// The same for IPv6; addresses that mean something on their link only do not count.
    pub inlets6: Vec<Device>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The largest packet that it takes, in bytes.
    pub mtu: u32,
}

/// Reads addresses and routes.
///
/// # Errors
/// Where netlink does not answer.
pub fn survey() -> Result<Survey> {
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
            let others =
                addresses.iter().filter(|(_, net)| net.addr().is_ipv4() == is_ipv4 && is_reached(net));
            ways.iter().copied().chain(others.map(|(index, _)| *index)).collect::<Vec<_>>()
        };
        let (all, all6) = (with_others(&ways, true), with_others(&ways6, false));
        Ok(Survey {
            taken,
            uplinks: named(handle, ways).await?,
            uplinks6: named(handle, ways6).await?,
            inlets: named(handle, all).await?,
            inlets6: named(handle, all6).await?,
        })
    })
}

/// The device of that name.
///
/// # Errors
/// `ENODEV` where there is none.
pub fn device(name: &str) -> Result<Device> {
    netlink::with(async |handle: &Handle| {
        let link = netlink::link(handle, name).await?;
        Ok(Device { name: name.to_owned(), mtu: netlink::mtu(&link).unwrap_or(DEFAULT_MTU) })
    })
}

/// Whether there is a device of that name.
///
/// # Errors
/// Where netlink does not answer.
pub fn exists(name: &str) -> Result<bool> {
    match device(name) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(false),
        found => found.map(|_| true),
    }
}

/// Ethernet's MTU, for a host without an uplink.
pub const DEFAULT_MTU: u32 = 1500;

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

/// Sends what comes in at `link` out by `device` and by no other: a copy of the device's routes of that family in a
/// table of its own, and an end to the look-up, so that nothing takes another way while the device is down. Returns
/// whether that leads beyond the device's own networks.
///
/// # Errors
/// Where a route or the rule is refused.
pub fn only_by(family: AddressFamily, device: &str, link: &str, table: u32) -> Result<bool> {
    netlink::with(async |handle: &Handle| {
        let leads_out = fill(handle, family, device, table).await?;
        let mut rule = handle.rule().add().input_interface(link).table_id(table).priority(RULE_PRIORITY);
        rule.message_mut().header.family = family;
        rule.action(RuleAction::ToTable)
            .execute()
            .await
            .context("add", format_args!("a routing rule for {link}"))?;
        Ok(leads_out)
    })
}

/// Makes the table of [`only_by`] follow the device's routes. While there is no such device nothing is to be followed.
///
/// # Errors
/// Where a route is refused.
pub fn renew(family: AddressFamily, device: &str, table: u32) -> Result<()> {
    netlink::with(async |handle: &Handle| match fill(handle, family, device, table).await {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        result => result.map(drop),
    })
}

/// Gives the table what the device has now, and takes the rest out of it. Returns whether that leads beyond the device's
/// own networks.
async fn fill(handle: &Handle, family: AddressFamily, device: &str, table: u32) -> Result<bool> {
    let found = netlink::link(handle, device).await?;
    let index = found.header.index;
    let (old, routes): (Vec<_>, Vec<_>) =
        dump(handle, family).await?.into_iter().partition(|route| table_of(route) == table);
    let mut own: Vec<_> = routes.into_iter().filter_map(|route| by_device(route, index)).collect();
    // Routes to neighbours come first: a gateway must be reachable when its route is added.
    own.sort_by_key(|route| (std::cmp::Reverse(u8::from(route.header.scope)), has_gateway(route)));
    let has_default = own.iter().any(|route| route.header.destination_prefix_length == 0);
    // A device without neighbours takes whatever is sent to it; in IPv6 each has routes, to its own link.
    let no_neighbours = found.header.flags.intersects(LinkFlags::Pointopoint | LinkFlags::Noarp)
        && (family == AddressFamily::Inet || own.iter().any(is_wide));
    let mut wanted: Vec<_> = own.into_iter().map(|route| moved(route, table)).collect();
    if !has_default && no_neighbours {
        wanted.push(default_by(family, index, table));
    }
    // First of all, so that at no time anything takes another way.
    if !old.iter().any(is_end) {
        add(handle, unreachable(family, table), device).await?;
    }
    for route in
        old.iter().filter(|route| !is_end(route) && !wanted.iter().any(|wanted| is_same(wanted, route)))
    {
        let deleted = handle.route().del(route.clone()).execute().await;
        gone_is_fine(deleted.context("delete", format_args!("a route of table {table}")))?;
    }
    for route in wanted.into_iter().filter(|wanted| !old.iter().any(|route| is_same(wanted, route))) {
        add(handle, route, device).await?;
    }
    Ok(has_default || no_neighbours)
}

/// Whether the look-up ends there.
fn is_end(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Unreachable
}

/// Whether two routes of one table lead to the same by the same way.
fn is_same(one: &RouteMessage, other: &RouteMessage) -> bool {
    let says = |route: &RouteMessage| {
        let matters = |attribute: &&RouteAttribute| {
            matches!(
                attribute,
                RouteAttribute::Destination(_)
                    | RouteAttribute::Gateway(_)
                    | RouteAttribute::Via(_)
                    | RouteAttribute::Oif(_)
                    | RouteAttribute::PrefSource(_)
                    | RouteAttribute::Metrics(_)
            )
        };
        let mut said: Vec<_> =
            route.attributes.iter().filter(matters).map(|attribute| format!("{attribute:?}")).collect();
        said.sort_unstable();
        (route.header.destination_prefix_length, route.header.kind, preference(route), said)
    };
    says(one) == says(other)
}

/// Undoes [`only_by`], for both families.
///
/// # Errors
/// Where the kernel refuses to delete rule or route.
pub fn remove(link: &str, table: u32) -> Result<()> {
    netlink::with(async |handle: &Handle| {
        for (version, family) in [(IpVersion::V4, AddressFamily::Inet), (IpVersion::V6, AddressFamily::Inet6)]
        {
            let rules: Result<Vec<_>, _> = handle.rule().get(version).execute().try_collect().await;
            let rules = match rules.context("read", "the routing rules") {
                // The kernel has no such family.
                Err(error) if error.errno() == Some(libc::EAFNOSUPPORT) => continue,
                rules => rules?,
            };
            for rule in rules.into_iter().filter(|rule| is_ours(rule, link, table)) {
                let deleted = handle.rule().del(rule).execute().await;
                gone_is_fine(deleted.context("delete", format_args!("the routing rule for {link}")))?;
            }
            for route in dump(handle, family).await? {
                if table_of(&route) == table {
                    let deleted = handle.route().del(route).execute().await;
                    gone_is_fine(deleted.context("delete", format_args!("a route of table {table}")))?;
                }
            }
        }
        Ok(())
    })
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH)) => Ok(()),
        result => result,
    }
}

fn is_ours(rule: &RuleMessage, link: &str, table: u32) -> bool {
    rule.attributes.contains(&RuleAttribute::Iifname(link.to_owned()))
        && rule.attributes.contains(&RuleAttribute::Table(table))
}

async fn dump(handle: &Handle, family: AddressFamily) -> Result<Vec<RouteMessage>> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    handle.route().get(request).execute().try_collect().await.context("read", "the routing tables")
}

async fn add(handle: &Handle, route: RouteMessage, device: &str) -> Result<()> {
    handle.route().add(route).execute().await.context("copy", format_args!("a route by {device}"))
}

/// The host's addresses with their networks, and by the numbers of their devices.
async fn addresses(handle: &Handle) -> Result<Vec<(u32, IpNet)>> {
    let messages: Vec<_> =
        handle.address().get().execute().try_collect().await.context("read", "the host's addresses")?;
    let net = |message: &rtnetlink::packet_route::address::AddressMessage| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => IpNet::new(*address, message.header.prefix_len).ok(),
            _ => None,
        })
    };
    Ok(messages.iter().filter_map(|message| Some((message.header.index, net(message)?))).collect())
}

/// Whether others may reach the host at the address.
fn is_reached(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address: IpAddr = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some((*address).into()),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

/// Devices of the family's default routes, by metric. A VPN's pair of half-world routes counts as one.
async fn default_devices(
    handle: &Handle,
    routes: &[RouteMessage],
    family: AddressFamily,
) -> Result<Vec<u32>> {
    let mut ways: Vec<_> = routes
        .iter()
        .filter(|route| route.header.address_family == family && table_of(route) < FIRST_TABLE)
        .filter(|route| {
            route.header.destination_prefix_length <= 1 && route.header.kind == RouteType::Unicast
        })
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
        found.push(Device { name: name.to_owned(), mtu: netlink::mtu(&link).unwrap_or(DEFAULT_MTU) });
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

/// What the kernel prefers comes first: the longer prefix, then the lower metric.
fn preference(route: &RouteMessage) -> (std::cmp::Reverse<u8>, u32) {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    (std::cmp::Reverse(route.header.destination_prefix_length), metric.unwrap_or(0))
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

/// The same route in another table, without what only the kernel says of it.
fn moved(mut route: RouteMessage, table: u32) -> RouteMessage {
    // What a router has announced is forgotten in its time; the copy is ours.
    route.header.protocol = RouteProtocol::Static;
    // A next hop object says the same as gateway and device do, and the kernel takes one of the two.
    let told = |attribute: &RouteAttribute| {
        matches!(attribute, RouteAttribute::Table(_) | RouteAttribute::CacheInfo(_) | RouteAttribute::NhId(_))
    };
    route.attributes.retain(|attribute| !told(attribute));
    route.attributes.push(RouteAttribute::Table(table));
    route.header.table = RouteHeader::RT_TABLE_UNSPEC;
    route.header.flags &= RouteFlags::Onlink;
    route
}

fn default_by(family: AddressFamily, index: u32, table: u32) -> RouteMessage {
    let mut route = RouteMessageBuilder::<IpAddr>::new()
        .output_interface(index)
        .scope(RouteScope::Link)
        .table_id(table)
        .priority(OWN_METRIC)
        .build();
    route.header.address_family = family;
    route
}

fn unreachable(family: AddressFamily, table: u32) -> RouteMessage {
    let mut route = RouteMessageBuilder::<IpAddr>::new()
        .kind(RouteType::Unreachable)
        .table_id(table)
        .priority(u32::MAX)
        .build();
    route.header.address_family = family;
    route
}

fn has_gateway(route: &RouteMessage) -> bool {
    route.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Gateway(_)))
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
