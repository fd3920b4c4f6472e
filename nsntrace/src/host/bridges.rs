//! Bridges of the host. Frames that pass one are not forwarded by the host, and yet go through its packet filter where
//! br_netfilter is loaded, as on hosts of virtual machines and containers.

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle,
    packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};

use crate::{
    error::{Context, Result},
    netlink, sysctl,
};

/// A match of iptables for all but such frames. It loads br_netfilter where that is not loaded, and changes with it what
/// the host does.
pub const ROUTED: &str = "-m physdev ! --physdev-is-bridged";

/// Whether the packet filter sees them.
pub fn are_filtered() -> bool {
    sysctl::is_there("bridge")
}

/// The names of all bridges, in the network namespace of the calling thread.
///
/// # Errors
/// Where netlink does not answer.
pub fn names() -> Result<Vec<String>> {
    netlink::with(async |handle: &Handle| {
        let links: Vec<_> =
            handle.link().get().execute().try_collect().await.context("list", "the host's links")?;
        let bridges = links.iter().filter(|link| is_bridge(link)).filter_map(netlink::name);
        Ok(bridges.map(ToOwned::to_owned).collect())
    })
}

fn is_bridge(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Bridge)),
        _ => false,
    })
}
