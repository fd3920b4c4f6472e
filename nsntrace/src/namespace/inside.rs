//! The program's side of the link, and its loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder, packet_route::route::RouteMessage,
};

use super::netns::Netns;
use crate::{
    error::{Context, Result},
    netlink,
    subnet::Subnet,
    sysctl,
};

/// Gives the link its address, brings it and `lo` up, and sends everything else to the gateway.
///
/// # Errors
/// Where the kernel refuses one of it.
pub fn configure(netns: &Netns, link: &str, subnet: &Subnet) -> Result<()> {
    netns.run(|| {
        // Before the link is up, so that it is not announced: the trace begins with the program's first packet.
        let _ = sysctl::set(&format!("ipv6/conf/{link}/disable_ipv6"), "1");
        netlink::with(async |handle: &Handle| {
            bring_up(handle, "lo").await?;
            let index = bring_up(handle, link).await?;
            let address = handle.address().add(index, subnet.inside, subnet.prefix_len);
            address.execute().await.context("give an address to", format_args!("link {link}"))?;
            handle
                .route()
                .add(default_by(subnet.gateway))
                .execute()
                .await
                .context("add", "the default route inside")
        })
    })
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
