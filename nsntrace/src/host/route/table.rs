//! A routing table of its own for `-d`: copies of one device's routes, and an end to the look-up.

use std::{cmp::Reverse, net::IpAddr};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, IpVersion, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        link::LinkFlags,
        route::{
            RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
        },
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};

use super::{by_device, dump, is_wide, preference, table_of};
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
    own.sort_by_key(|route| (Reverse(u8::from(route.header.scope)), has_gateway(route)));
    let has_default = own.iter().any(|route| route.header.destination_prefix_length == 0);
    // A device without neighbours, if it is up, takes whatever is sent to it; in IPv6 each has routes, to its own link.
    let no_neighbours = found.header.flags.contains(LinkFlags::Up)
        && found.header.flags.intersects(LinkFlags::Pointopoint | LinkFlags::Noarp)
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

/// Of several ways to the same, as two routers announce them, one is enough: a table takes no second one by the same device.
async fn add(handle: &Handle, route: RouteMessage, device: &str) -> Result<()> {
    let added = handle.route().add(route).execute().await;
    match added.context("copy", format_args!("a route by {device}")) {
        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
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
