//! Notice that others change the host's network: rules of nftables, routes, or what is forwarded.

use std::{io, mem, time::Duration};

use rtnetlink::sys::{
    AsyncSocket, AsyncSocketExt, TokioSocket,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use tokio::time::{Instant, sleep_until};

use crate::netlink;

/// Groups of listeners: `NFNLGRP_NFTABLES`; `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_ROUTE`, `RTNLGRP_IPV4_NETCONF` and
/// `RTNLGRP_IPV6_NETCONF`.
const RULES: &[u32] = &[7];
const ROUTING: &[u32] = &[7, 11, 24, 25];

/// Where others change one thing after the other, all that they have changed in such a time is one change.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Listens for changes.
pub struct Events {
    /// None where the kernel does not tell.
    rules: Option<TokioSocket>,
    routing: Option<TokioSocket>,
    /// When what was heard of is told, and whether rules are among it.
    due: Option<Instant>,
    has_rules: bool,
}

impl Events {
    /// Begins to listen, in the network namespace of the calling thread, in an event loop.
    pub fn listen() -> Self {
        let rules = listen(NETLINK_NETFILTER, RULES).ok();
        Self { rules, routing: listen(NETLINK_ROUTE, ROUTING).ok(), due: None, has_rules: false }
    }

    /// Waits for a change, and says whether rules are among it. None is lost where the waiting is given up and begun again.
    pub async fn changed(&mut self) -> bool {
        if self.due.is_none() {
            tokio::select! {
                () = heard(self.rules.as_ref()) => self.has_rules = true,
                () = heard(self.routing.as_ref()) => {}
            }
        }
        sleep_until(*self.due.get_or_insert_with(|| Instant::now() + AT_ONCE)).await;
        self.due = None;
        hears_more(self.routing.as_ref());
        mem::take(&mut self.has_rules) | hears_more(self.rules.as_ref())
    }
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    netlink::listen(socket.socket_mut(), groups)?;
    Ok(socket)
}

/// An error is news too: more has happened than the socket has room for.
async fn heard(socket: Option<&TokioSocket>) {
    match socket {
        Some(socket) => drop(socket.recv_from_full().await),
        None => std::future::pending().await,
    }
}

/// Whether there is more to be heard; then that is heard.
fn hears_more(socket: Option<&TokioSocket>) -> bool {
    let Some(socket) = socket else { return false };
    let mut is_news = false;
    loop {
        match socket.socket_ref().recv_from_full() {
            Ok(_) => is_news = true,
            Err(error) => return is_news || error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}
