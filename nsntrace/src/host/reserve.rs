//! Published ports are the program's: no server of the host has them, and none gets them meanwhile.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket,
    sockopt::{Ipv6V6Only, ReuseAddr},
};

use crate::{
    error::{Context, Error, Result},
    publish::{Publish, Transport},
};

/// Takes the ports. As long as the sockets are open nobody else gets them.
///
/// # Errors
/// Says which port is in use, or which address is not the host's.
pub fn reserve(published: &[Publish]) -> Result<Vec<OwnedFd>> {
    let mut held = Vec::new();
    for publish in published {
        let Publish { host, port, transport } = publish;
        for address in publish.addresses() {
            match take(*transport, address, *port) {
                // The kernel may not have the other family.
                Err(nix::Error::EAFNOSUPPORT | nix::Error::EADDRNOTAVAIL) if host.is_none() => {}
                Err(nix::Error::EADDRINUSE) => {
                    return Err(Error::told(format!(
                        "-p {publish}: {transport} port {port} of this host is in use: end the server that has it, \
                         or publish another port"
                    )));
                }
                Err(nix::Error::EADDRNOTAVAIL) => {
                    return Err(Error::told(format!("-p {publish}: this host does not have that address")));
                }
                taken => held.push(taken.context("take", format_args!("the port of -p {publish}"))?),
            }
        }
    }
    Ok(held)
}

/// Bound and no more: nothing is read. Who gets here past the rules is refused by TCP, and has no answer by UDP.
fn take(transport: Transport, address: IpAddr, port: u16) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = if transport == Transport::Tcp { SockType::Stream } else { SockType::Datagram };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &true)?;
    }
    let address = SockaddrStorage::from(SocketAddr::new(address, port));
    match bind(socket.as_raw_fd(), &address) {
        Err(nix::Error::EADDRINUSE) if transport == Transport::Tcp => {
            // It may be that only old connections of a server are still there, which is gone.
            setsockopt(&socket, ReuseAddr, &true)?;
            bind(socket.as_raw_fd(), &address)?;
            setsockopt(&socket, ReuseAddr, &false)?;
        }
        result => result?,
    }
    Ok(socket)
}
