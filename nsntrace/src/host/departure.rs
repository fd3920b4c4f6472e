//! Notice that a link has gone.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rtnetlink::{
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{AddressFamily, RouteNetlinkMessage},
    sys::{Socket, protocols::NETLINK_ROUTE},
};

use crate::{
    error::{Context, Result},
    netlink,
};

/// The group of listeners to what becomes of links: `RTNLGRP_LINK`.
const LINKS: &[u32] = &[1];

/// How long a link is waited for, in milliseconds. It takes some ten.
const PATIENCE: u128 = 1000;

/// Who waits for the end of a link.
pub(super) struct Departure<'a> {
    name: &'a str,
    news: Socket,
}

impl<'a> Departure<'a> {
    /// Begins to listen, in the network namespace of the calling thread, before anybody deletes the link.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub(super) fn watch(name: &'a str) -> Result<Self> {
        let listen = || {
            let mut news = Socket::new(NETLINK_ROUTE)?;
            netlink::listen(&mut news, LINKS)?;
            news.set_non_blocking(true)?;
            Ok::<_, std::io::Error>(news)
        };
        Ok(Self { name, news: listen().context("listen for", "the end of a link")? })
    }

    /// Waits until the kernel says that it is gone: its addresses, routes and settings are too. False where that takes too
    /// long, or something is to be read from `other`.
    ///
    /// # Errors
    /// Where the kernel has more to say than there is room for.
    pub(super) fn wait(self, other: BorrowedFd<'_>) -> Result<bool> {
        let began = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(began.elapsed().as_millis());
            let mut fds =
                [PollFd::new(self.news.as_fd(), PollFlags::POLLIN), PollFd::new(other, PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) {
                Err(Errno::EINTR) => continue,
                heard => heard.context("wait for", "the end of a link")?,
            };
            let [news, other] = fds.map(|fd| fd.any().unwrap_or(true));
            if news && self.has_gone()? {
                return Ok(true);
            }
            if other || left == 0 {
                return Ok(false);
            }
        }
    }

    /// Whether that is in what the kernel has said so far.
    fn has_gone(&self) -> Result<bool> {
        loop {
            match self.news.recv_from_full() {
                Ok((message, _)) if self.tells(&message) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(false),
                Err(error) => return Err(error).context("hear of", "the end of a link"),
            }
        }
    }

    /// A link that leaves a bridge is told to be gone too, but for the bridge.
    fn tells(&self, message: &[u8]) -> bool {
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))) => {
                link.header.interface_family == AddressFamily::Unspec
                    && netlink::name(&link) == Some(self.name)
            }
            _ => false,
        }
    }
}
