//! Who talked to whom, and how it went.

mod connections;
mod peer;
mod peers;
mod tcp;
mod traffic;

use std::cmp::Reverse;

use connections::{Connection, Connections, Key};
use nsntrace_ebpf::{RecordHeader, direction};
pub use peer::{Endpoint, Name, Peer, Role, Source};
use peers::Peers;
pub use traffic::Traffic;

use super::{bounded::Bounded, names::Names};
use crate::{
    dissect::{
        packet::{Fragment, Packet},
        transport::{Icmp, Transport, protocol},
    },
    ownership::Owner,
};

/// Fragments of so many packets find the row of the first one.
const MOST_FRAGMENTS: usize = 256;

/// Which way a packet went, seen from the program's end of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Sent,
    Received,
}

/// Where in a summary a packet belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The row.
    pub(super) peer: usize,
    /// Whether the program is the client, and sent it.
    pub(super) is_from_client: bool,
}

/// Rows of who talked to whom, as they grow. The memory that they take is bounded.
#[derive(Debug, Default)]
pub struct Summary {
    connections: Connections,
    fragments: Bounded<(u128, u128, u32, u8), usize, MOST_FRAGMENTS>,
    peers: Peers,
    link: Traffic,
}

impl Summary {
    /// The rows, the one with most bytes first.
    pub fn peers(&self) -> Vec<&Peer> {
        let mut peers: Vec<_> = self.peers.rows().iter().collect();
        let rank = |peer: &Peer| (Reverse(peer.traffic.bytes.total()), peer.endpoint);
        peers.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.process.cmp(&b.process)));
        peers
    }

    /// What was exchanged with those for whom there was no row left.
    pub fn others(&self) -> &Peer {
        self.peers.others()
    }

    /// What keeps the link going, and is nobody's talk: ARP, and its like in IPv6.
    pub fn link(&self) -> &Traffic {
        &self.link
    }

    /// Counts a packet, for its owner where that is known. None where it was counted before, or belongs to no row.
    pub(super) fn see(
        &mut self,
        header: &RecordHeader,
        packet: Option<&Packet<'_>>,
        owner: Option<Owner<'_>>,
        names: &Names,
    ) -> Option<Place> {
        let is_outbound = header.direction == direction::OUTBOUND;
        let by_direction = if is_outbound { Way::Sent } else { Way::Received };
        let Some(packet) = packet.filter(|packet| !is_of_the_link(packet)) else {
            self.link.add(by_direction, header.time, header.whole_len());
            return None;
        };
        if let Some(peer) = self.earlier_fragment(packet) {
            self.peers.at(peer).traffic.add(by_direction, header.time, header.whole_len());
            return None;
        }
        let (source, target) = packet.ends();
        let key = Key::new(packet.protocol, source, target);
        let connection = match self.connections.get_mut(&key) {
            Some(connection) => connection,
            None => {
                self.begin(key, packet, is_outbound, owner, names);
                self.connections.get_mut(&key)?
            }
        };
        let way = connection.way(source, target, is_outbound)?;
        // What the program's other end sends is that one's, if both are in the trace.
        let is_own = way == Way::Sent || !is_outbound;
        let is_new = |owner: &Owner<'_>| {
            connection.passes_to(owner.pid) || self.peers.is_anothers(connection.peer, owner.name)
        };
        if let Some(owner) = owner.filter(|_| is_own).filter(is_new) {
            connection.peer = self.peers.of(Some(owner.name), connection.endpoint);
            self.peers.at(connection.peer).pid(owner.pid);
        }
        let place = Place {
            peer: connection.peer,
            is_from_client: connection.endpoint.role == Role::Client && way == Way::Sent,
        };
        let peer = self.peers.at(place.peer);
        peer.traffic.add(way, header.time, header.whole_len());
        match &packet.transport {
            Transport::Tcp(tcp) => connection.segment(peer, way, tcp, header.time),
            Transport::Icmp(icmp) if is_unreachable(packet.protocol, icmp) => self.unreachable(icmp.payload),
            _ => {}
        }
        if let Some(fragment) = packet.fragment {
            self.fragments.insert(fragment_key(packet, fragment), place.peer);
        }
        Some(place)
    }

    /// A client's word for whom it wants.
    pub(super) fn name(&mut self, peer: usize, name: &str, source: Source) {
        self.peers.at(peer).name(name, source);
    }

    /// A query to a name server, perhaps once more.
    pub(super) fn query(&mut self, peer: usize, is_new: bool) {
        self.peers.at(peer).queries += u64::from(is_new);
    }

    /// That one was never answered.
    pub(super) fn unanswered(&mut self, peer: usize, name: Option<&str>) {
        self.peers.at(peer).query_unanswered(name);
    }

    /// What the end says: who was never answered, and names that came late.
    pub(super) fn conclude(&mut self, names: &Names) {
        for connection in std::mem::take(&mut self.connections).into_values() {
            connection.conclude(&mut self.peers);
        }
        self.peers.settle();
        for peer in self.peers.rows_mut() {
            if peer.names.is_empty()
                && let Some(name) = names.of(peer.endpoint.address)
            {
                peer.name(name, Source::Dns);
            }
        }
    }

    /// A connection that was not seen before.
    fn begin(
        &mut self,
        key: Key,
        packet: &Packet<'_>,
        is_outbound: bool,
        owner: Option<Owner<'_>>,
        names: &Names,
    ) {
        let mut connection = Connection::new(packet, is_outbound);
        let Endpoint { address, role, .. } = connection.endpoint;
        connection.peer = self.peers.of(owner.map(|owner| owner.name), connection.endpoint);
        let peer = self.peers.at(connection.peer);
        peer.connections += 1;
        if let Some(owner) = owner {
            connection.passes_to(owner.pid);
            peer.pid(owner.pid);
        }
        if let Some(name) = names.of(address).filter(|_| role == Role::Client) {
            peer.name(name, Source::Dns);
        }
        for forgotten in self.connections.insert(key, connection).into_values() {
            forgotten.conclude(&mut self.peers);
        }
    }

    /// The row of the packet that this is a later fragment of.
    fn earlier_fragment(&mut self, packet: &Packet<'_>) -> Option<usize> {
        let fragment = packet.fragment.filter(|fragment| !fragment.is_first)?;
        self.fragments.get(&fragment_key(packet, fragment)).copied()
    }

    /// That a packet which begins so did not arrive.
    fn unreachable(&mut self, beginning: &[u8]) {
        let length = u32::try_from(beginning.len()).unwrap_or(u32::MAX);
        let Some(packet) = Packet::read(nsntrace_ebpf::linktype::RAW, beginning, length) else { return };
        let (source, target) = packet.ends();
        if let Some(connection) = self.connections.get_mut(&Key::new(packet.protocol, source, target)) {
            connection.unreachable(source, &mut self.peers);
        }
    }
}

/// What all fragments of a packet have in common. In IPv4 each protocol numbers its own.
fn fragment_key(packet: &Packet<'_>, fragment: Fragment) -> (u128, u128, u32, u8) {
    let protocol = if packet.source.is_ipv4() { packet.protocol } else { 0 };
    (connections::bits(packet.source), connections::bits(packet.target), fragment.id, protocol)
}

/// Neighbour discovery and multicast listeners: what a host says by itself.
fn is_of_the_link(packet: &Packet<'_>) -> bool {
    matches!(&packet.transport, Transport::Icmp(icmp)
        if packet.protocol == protocol::ICMPV6 && matches!(icmp.kind, 130..=137 | 143))
}

/// Messages that a packet did not get where it should: that there is no way, or that it took too long. One that was too
/// large for its way is sent again in smaller ones.
fn is_unreachable(protocol: u8, icmp: &Icmp<'_>) -> bool {
    match protocol {
        protocol::ICMP => matches!((icmp.kind, icmp.code), (3, 0..=3 | 5..) | (11, _)),
        _ => matches!(icmp.kind, 1 | 3),
    }
}

#[cfg(test)]
mod tests;
