//! The program's side of the link, and its loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder, packet_route::route::RouteMessage,
};

use super::netns::Netns;
use crate::{
    error::{Context, Result},
    ipv6::{self, End},
    netlink,
    subnet::Subnet,
};

/// Gives the link its address, brings it and `lo` up, and sends everything else to the gateway.
///
/// # Errors
/// Where the kernel refuses one of it.
pub fn configure(netns: &Netns, link: &str, subnet: &Subnet) -> Result<()> {
    netns.run(|| {
        // Before the link is up: the trace begins with the program's first packet.
        ipv6::switch_off(link);
        netlink::with(async |handle: &Handle| {
            bring_up(handle, "lo").await?;
            let index = bring_up(handle, link).await?;
            let address = handle.address().add(index, subnet.inside, subnet.prefix_len);
            address.execute().await.context("give an address to", format_args!("link {link}"))?;
            add_default(handle, subnet.gateway).await
        })
    })
}

/// Gives the link, which is up, an IPv6 address too, and sends everything else of IPv6 to the gateway.
///
/// # Errors
/// Where the kernel refuses one of it.
pub fn configure_ipv6(netns: &Netns, end: End<'_>) -> Result<()> {
    netns.run(|| {
        ipv6::switch_on(end)?;
        netlink::with(async |handle: &Handle| add_default(handle, end.peer).await)
    })
}

async fn add_default(handle: &Handle, gateway: IpAddr) -> Result<()> {
    handle.route().add(default_by(gateway)).execute().await.context("add", "the default route inside")
}

async fn bring_up(handle: &Handle, link: &str) -> Result<u32> {
    let index = netlink::link(handle, link).await?.header.index;
    let up = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    handle.link().set(up).execute().await.context("bring up", format_args!("link {link}"))?;
    Ok(index)
}

fn default_by(gateway: IpAddr) -> RouteMessage {
    match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
    }
}
