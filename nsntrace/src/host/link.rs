//! The veth pair that joins the namespace to the host.

use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_route::link::{InfoData, InfoVeth, LinkAttribute},
};

use super::run_id::RunId;
use crate::{
    error::{Context, Result},
    ipv6, netlink,
    subnet::Subnet,
};

/// How the names of host ends begin; the pid follows. Nothing that a network manager takes for a card.
pub const OUTER: &str = "nsgw";

/// How the names of the ends inside begin.
const INNER: &str = "nscap";

/// As many as the kernel would use anyway. Where it is not told, it makes some for each processor, and waits for all of
/// those to part with them.
const ONE_QUEUE: [LinkAttribute; 2] = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

/// The names of the two ends, and their hardware addresses.
#[derive(Clone, Debug)]
pub struct Names {
    /// In the host.
    pub outer: String,
    /// In the namespace.
    pub inner: String,
    /// The host's end.
    pub outer_mac: [u8; 6],
    /// The end in the namespace.
    pub inner_mac: [u8; 6],
}

impl Names {
    /// The names for this process.
    pub fn of_this_process() -> Self {
        let pid = std::process::id();
        let outer_mac = random_mac();
        let mut inner_mac = outer_mac;
        inner_mac[5] ^= 1;
        Self { outer: format!("{OUTER}{pid}"), inner: format!("{INNER}{pid}"), outer_mac, inner_mac }
    }
}

/// One that is locally administered. What the kernel draws itself udev may change later.
fn random_mac() -> [u8; 6] {
    let [.., a, b, c, d, e] = fastrand::u64(..).to_be_bytes();
    [0x02, a, b, c, d, e]
}

/// Makes the pair, the inner end right inside the namespace, and readies the outer one.
///
/// # Errors
/// Where the kernel refuses it, or a link of that name exists.
pub fn create(names: &Names, netns: BorrowedFd<'_>, subnet: &Subnet, mtu: u32, id: RunId) -> Result<()> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(names.inner.clone())
        .address(names.inner_mac.to_vec())
        .mtu(mtu)
        .setns_by_fd(netns.as_raw_fd())
        .append_extra_attribute(ONE_QUEUE[0].clone())
        .append_extra_attribute(ONE_QUEUE[1].clone())
        .build();
    let pair = LinkMessageBuilder::<LinkVeth>::new(&names.outer, &names.inner)
        .address(names.outer_mac.to_vec())
        .mtu(mtu)
        .append_extra_attribute(ONE_QUEUE[0].clone())
        .append_extra_attribute(ONE_QUEUE[1].clone())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    let outer = names.outer.as_str();
    netlink::with(async |handle: &Handle| {
        handle.link().add(pair).execute().await.context("create", format_args!("link {outer}"))?;
        let index = netlink::link(handle, outer).await?.header.index;
        ipv6::switch_off(outer);
        let address = handle.address().add(index, subnet.gateway, subnet.prefix_len);
        address.execute().await.context("give an address to", format_args!("link {outer}"))?;
        let up = LinkMessageBuilder::<LinkUnspec>::new().index(index).alias(id.tag()).up().build();
        handle.link().set(up).execute().await.context("bring up", format_args!("link {outer}"))
    })
}

/// Deletes the pair by its outer end, if that is the one of the run that `tag` names.
///
/// # Errors
/// Where the kernel refuses it.
pub fn delete(name: &str, tag: &str) -> Result<()> {
    netlink::with(async |handle: &Handle| {
        let link = match netlink::link(handle, name).await {
            Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(()),
            link => link?,
        };
        // A run that died before it set the alias has left a link without one.
        let alias = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfAlias(alias) => Some(alias.as_str()),
            _ => None,
        });
        if alias.is_some_and(|alias| alias != tag) {
            return Ok(());
        }
        match handle
            .link()
            .del(link.header.index)
            .execute()
            .await
            .context("delete", format_args!("link {name}"))
        {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    })
}
