//! Connections, and pairs of ports of protocols that have none.

use std::net::IpAddr;

use super::{
    Way,
    peer::{Endpoint, Peer, Role},
    peers::Peers,
    tcp::{Event, Track},
};
use crate::{
    dissect::{
        packet::Packet,
        transport::{Tcp, Transport},
    },
    talk::{End, bounded::Bounded},
};

/// Connections that are followed: up to twice as many.
const MOST: usize = 8192;

/// All that are followed.
pub(super) type Connections = Bounded<Key, Connection, MOST>;

/// Ports below this are those of services.
const WELL_KNOWN: u16 = 1024;

/// A connection's two ends, in an order that is the same for both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    low: (u128, u16),
    high: (u128, u16),
    protocol: u8,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Its row.
    pub(super) peer: usize,
    /// The process whose row that is.
    owner: u32,
    /// The other end.
    pub(super) endpoint: Endpoint,
    /// The program's end.
    local: End,
    /// Whether both ends are the program's. Then what goes out is all there is: what comes in was counted.
    is_inside: bool,
    track: Option<Track>,
    is_unreachable: bool,
}

impl Key {
    pub(super) fn new(protocol: u8, source: End, target: End) -> Self {
        let [source, target] = [source, target].map(|end| (bits(end.ip()), end.port()));
        Self { low: source.min(target), high: source.max(target), protocol }
    }
}

/// An address as a number. That of IPv4 is the mapped one, which no packet has.
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Connection {
    /// The connection that a packet belongs to; its row is not known yet.
    pub(super) fn new(packet: &Packet<'_>, is_outbound: bool) -> Self {
        let (source, target) = packet.ends();
        let (local, remote) = if is_outbound { (source, target) } else { (target, source) };
        let role = role(packet, local, remote, is_outbound);
        let has_ports = matches!(packet.transport, Transport::Tcp(_) | Transport::Udp(_));
        let port = if role == Role::Client { remote.port() } else { local.port() };
        let port = has_ports.then_some(port);
        let track = match &packet.transport {
            Transport::Tcp(tcp) => Some(Track::new(if is_outbound { Way::Sent } else { Way::Received }, tcp)),
            _ => None,
        };
        Self {
            peer: 0,
            owner: 0,
            endpoint: Endpoint { protocol: packet.protocol, address: remote.ip(), port, role },
            local,
            is_inside: false,
            track,
            is_unreachable: false,
        }
    }

    /// Gives it to a process; whether it was another's before.
    pub(super) fn passes_to(&mut self, owner: u32) -> bool {
        std::mem::replace(&mut self.owner, owner) != owner
    }

    /// Which way a packet went; none where it was seen before, on its way out.
    pub(super) fn way(&mut self, source: End, target: End, is_outbound: bool) -> Option<Way> {
        // The program's other end says this, or is told it.
        self.is_inside |= if is_outbound { source != self.local } else { target != self.local };
        match (is_outbound, self.is_inside) {
            (false, true) => None,
            (false, false) => Some(Way::Received),
            (true, _) if source == self.local => Some(Way::Sent),
            (true, _) => Some(Way::Received),
        }
    }

    /// A segment of it.
    pub(super) fn segment(&mut self, peer: &mut Peer, way: Way, tcp: &Tcp<'_>, time: u64) {
        let Some(track) = &mut self.track else { return };
        if track.is_another(way, tcp) {
            peer.connections += 1;
            peer.unanswered += u64::from(track.is_unanswered());
            *track = Track::new(way, tcp);
            self.is_unreachable = false;
        }
        match track.see(way, tcp, time) {
            Some(Event::Refused) => peer.refused += 1,
            Some(Event::Reset) => *peer.resets.of(way) += 1,
            Some(Event::Retransmission) => *peer.retransmissions.of(way) += 1,
            None => {}
        }
    }

    /// That a packet from there did not arrive. That ends an attempt; what is connected lives on. What the program does not
    /// want any more its own kernel refuses: the other end was reached then.
    pub(super) fn unreachable(&mut self, source: End, peers: &mut Peers) {
        if source != self.local {
            return;
        }
        let is_failure = self.track.as_mut().is_none_or(Track::fail);
        if is_failure && !self.is_unreachable {
            self.is_unreachable = true;
            peers.at(self.peer).unreachable += 1;
        }
    }

    /// What is left to say when it is over.
    pub(super) fn conclude(&self, peers: &mut Peers) {
        if self.track.as_ref().is_some_and(Track::is_unanswered) {
            peers.at(self.peer).unanswered += 1;
        }
    }
}

/// Who began it, by its first packet that was seen. Where that is not the first one, ports tell.
fn role(packet: &Packet<'_>, local: End, remote: End, is_outbound: bool) -> Role {
    let by_ports = if local.port() < remote.port() { Role::Server } else { Role::Client };
    match &packet.transport {
        Transport::Tcp(tcp) if tcp.syn => {
            if tcp.ack == is_outbound {
                Role::Server
            } else {
                Role::Client
            }
        }
        Transport::Tcp(_) => by_ports,
        // An answer to what was asked before the trace.
        Transport::Udp(_) if !is_outbound && remote.port() < WELL_KNOWN => by_ports,
        Transport::Udp(_) if !is_outbound => Role::Server,
        _ => Role::Client,
    }
}
