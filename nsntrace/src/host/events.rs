//! Notice that others change the host's network: rules of nftables, or routes.

use std::{io, time::Duration};

use rtnetlink::sys::{
    AsyncSocket, AsyncSocketExt, TokioSocket,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use tokio::time::sleep;

use crate::netlink;

/// Groups of listeners: `NFNLGRP_NFTABLES`, `RTNLGRP_IPV4_ROUTE` and `RTNLGRP_IPV6_ROUTE`.
const RULES: &[u32] = &[7];
const ROUTES: &[u32] = &[7, 11];

/// Where others change one thing after the other, all that they have changed in such a time is one change.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Listens for changes.
pub struct Events {
    /// None where the kernel does not tell.
    rules: Option<TokioSocket>,
    routes: Option<TokioSocket>,
    is_pending: bool,
}

impl Events {
    /// Begins to listen, in the network namespace of the calling thread, in an event loop.
    pub fn listen() -> Self {
        let rules = listen(NETLINK_NETFILTER, RULES).ok();
        Self { rules, routes: listen(NETLINK_ROUTE, ROUTES).ok(), is_pending: false }
    }

    /// Waits for a change. None is lost where the waiting is given up and begun again.
    pub async fn changed(&mut self) {
        if !self.is_pending {
            tokio::select! {
                () = heard(self.rules.as_ref()) => {}
                () = heard(self.routes.as_ref()) => {}
            }
            self.is_pending = true;
        }
        sleep(AT_ONCE).await;
        for socket in [&self.rules, &self.routes].into_iter().flatten() {
            while socket.socket_ref().recv_from_full().is_ok() {}
        }
        self.is_pending = false;
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
