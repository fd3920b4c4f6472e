//! Route netlink in the namespace of the calling thread, from plain synchronous code.

use std::io;

use rtnetlink::{
    Handle,
    packet_route::link::{LinkAttribute, LinkMessage},
    sys::{Socket, SocketAddr},
};
use tokio::runtime;

use crate::{
    error::{Context, Error, Result},
    own_thread,
};

/// Does `work` with a netlink socket of the namespace that the calling thread is in.
///
/// A thread of its own, since the caller may be inside a runtime already; it starts in its parent's namespace.
///
/// # Errors
/// Where no socket can be had, or what `work` returns.
pub fn with<T: Send>(work: impl AsyncFnOnce(&Handle) -> Result<T> + Send) -> Result<T> {
    let visit = || {
        let runtime =
            runtime::Builder::new_current_thread().enable_io().build().context("start", "an event loop")?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().context("open", "a netlink socket")?;
            let connection = tokio::spawn(connection);
            let result = work(&handle).await;
            // A socket that broke down ends every answer as if it were complete.
            tokio::task::yield_now().await;
            if result.is_ok() && connection.is_finished() {
                return Err(Error::told("the netlink socket broke down: the kernel takes no requests"));
            }
            connection.abort();
            result
        })
    };
    own_thread::run(visit).context("start", "a thread")?
}

/// Has a new socket hear what these groups are told.
///
/// # Errors
/// Where the kernel does not tell.
pub fn listen(socket: &mut Socket, groups: &[u32]) -> io::Result<()> {
    socket.bind(&SocketAddr::new(0, 0))?;
    groups.iter().try_for_each(|group| socket.add_membership(*group))
}

/// The link of that name, as the kernel describes it.
///
/// # Errors
/// `ENODEV` where there is none.
pub async fn link(handle: &Handle, name: &str) -> Result<LinkMessage> {
    use futures_util::TryStreamExt;
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.context("look up", format_args!("link {name}"))?;
    link.ok_or(nix::Error::ENODEV).context("look up", format_args!("link {name}"))
}

/// The name in a link message.
pub fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The MTU in a link message, in bytes.
pub fn mtu(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}
