//! The host's own loopback at the gateway: the kernel keeps loopback addresses off every other device, and here it is
//! told to let them pass at the link, for connections that rules have turned there.

use std::net::Ipv6Addr;

use rtnetlink::{Handle, RouteMessageBuilder, packet_route::route::RouteType};

use super::{
    nat::{Family, Rule},
    run_id::RunId,
};
use crate::{
    error::{Context, Result},
    netlink,
    subnet::Subnet,
    sysctl,
};

/// Behind the kernel's own route to ::1, which is without a metric. The number of the link is added: each has its own.
const FIRST_METRIC: u32 = 1024;

/// The loopback addresses of a family.
pub(super) fn loopback(family: Family) -> &'static str {
    match family {
        Family::V4 => "127.0.0.0/8",
        Family::V6 => "::1",
    }
}

/// The rules that must be there before [`open`]: of what comes in for a loopback address only that passes which was
/// turned there. With `services` the gateway's own ports lead to those of the loopback.
pub fn plan(link: &str, subnet: &Subnet, id: RunId, services: bool) -> Vec<Rule> {
    let Subnet { gateway, inside, .. } = subnet;
    let family = Family::of(*inside);
    let rule = |table, chain, matches: &str, target| Rule::new(family, table, chain, matches, id, target);
    let here = format!("-i {link} -d {}", loopback(family));
    let mut rules = vec![
        rule("filter", "INPUT", &here, "DROP"),
        rule("filter", "INPUT", &format!("{here} -m conntrack --ctstate DNAT"), "ACCEPT"),
    ];
    let target = match family {
        Family::V4 => "DNAT --to-destination 127.0.0.1",
        Family::V6 => "DNAT --to-destination ::1",
    };
    for protocol in ["tcp", "udp"].into_iter().filter(|_| services) {
        let matches = format!("-i {link} -s {inside} -d {gateway} -p {protocol}");
        rules.push(rule("nat", "PREROUTING", &matches, target));
    }
    rules
}

/// Lets loopback addresses pass at the link. It ends with the link.
///
/// # Errors
/// Where the kernel refuses it.
pub fn open(link: &str, family: Family) -> Result<()> {
    match family {
        Family::V4 => sysctl::set(&format!("ipv4/conf/{link}/route_localnet"), "1")
            .context("let loopback addresses pass at", format_args!("link {link}")),
        // There is no such setting; but what is routed to the link is looked for on the link.
        Family::V6 => netlink::with(async |handle: &Handle| {
            let index = netlink::link(handle, link).await?.header.index;
            let route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(Ipv6Addr::LOCALHOST, 128)
                .output_interface(index)
                .kind(RouteType::Local)
                .table_id(libc::RT_TABLE_LOCAL.into())
                .priority(FIRST_METRIC + index)
                .build();
            let added = handle.route().add(route).execute().await;
            added.context("let ::1 pass at", format_args!("link {link}"))
        }),
    }
}
