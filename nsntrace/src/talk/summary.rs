//! Who talked to whom, and how it went.

mod connections;
mod peers;
mod tcp;

use std::cmp::Reverse;

use connections::{Connection, Connections, Key};
use nsntrace_ebpf::{RecordHeader, direction};
pub use peers::{Name, Peer, Process, Role, Source, Traffic};
use peers::{PeerKey, Peers};

use super::{bounded::Bounded, names::Names};
use crate::{
    dissect::{
        packet::{Fragment, Packet},
        transport::{Transport, protocol},
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
    fragments: Bounded<(u128, u128, u32), usize, MOST_FRAGMENTS>,
    peers: Peers,
    link: Traffic,
}

impl Summary {
    /// The rows, the one with most bytes first.
    pub fn peers(&self) -> Vec<&Peer> {
        let mut peers: Vec<_> = self.peers.rows().iter().collect();
        peers.sort_by_key(|peer| {
            (Reverse(peer.traffic.bytes.total()), peer.protocol, peer.address, peer.port, peer.role)
        });
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

    /// Counts a packet. None where it was counted before, or belongs to no row.
    pub(super) fn see(
        &mut self,
        header: &RecordHeader,
        packet: Option<&Packet<'_>>,
        owner: Option<Owner<'_>>,
        names: &Names,
    ) -> Option<Place> {
        let is_outbound = header.direction == direction::OUTBOUND;
        let Some(packet) = packet.filter(|packet| !is_of_the_link(packet)) else {
            let way = if is_outbound { Way::Sent } else { Way::Received };
            self.link.add(way, header.time, header.wire_len);
            return None;
        };
        if let Some(peer) = self.earlier_fragment(packet) {
            let way = if is_outbound { Way::Sent } else { Way::Received };
            let peer = self.peers.at(peer);
            peer.traffic.add(way, header.time, header.wire_len);
            peer.process(owner);
            return None;
        }
        let (source, target) = packet.ends();
        let key = Key::new(packet.protocol, source, target);
        let connection = match self.connections.get_mut(&key) {
            Some(connection) => connection,
            None => {
                self.begin(key, packet, is_outbound, names);
                self.connections.get_mut(&key)?
            }
        };
        let way = connection.way(source, target, is_outbound)?;
        let place = Place { peer: connection.peer, is_from_client: connection.is_client && way == Way::Sent };
        let peer = self.peers.at(place.peer);
        peer.traffic.add(way, header.time, header.wire_len);
        peer.process(owner);
        match &packet.transport {
            Transport::Tcp(tcp) => connection.segment(peer, way, tcp, header.time),
            Transport::Icmp(icmp) if is_unreachable(packet.protocol, icmp.kind) => {
                self.unreachable(icmp.payload)
            }
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
        for peer in self.peers.rows_mut() {
            if peer.names.is_empty()
                && let Some(name) = names.of(peer.address)
            {
                peer.name(name, Source::Dns);
            }
        }
    }

    /// A connection that was not seen before.
    fn begin(&mut self, key: Key, packet: &Packet<'_>, is_outbound: bool, names: &Names) {
        let connection = Connection::new(packet, is_outbound, |remote, port, role| {
            let key = PeerKey { protocol: packet.protocol, address: remote, port, role };
            let (number, peer) = self.peers.of(key);
            peer.connections += 1;
            if let Some(name) = names.of(remote).filter(|_| role == Role::Client) {
                peer.name(name, Source::Dns);
            }
            number
        });
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
            connection.unreachable(&mut self.peers);
        }
    }
}

fn fragment_key(packet: &Packet<'_>, fragment: Fragment) -> (u128, u128, u32) {
    (connections::number(packet.source), connections::number(packet.target), fragment.id)
}

/// Neighbour discovery and multicast listeners: what a host says by itself.
fn is_of_the_link(packet: &Packet<'_>) -> bool {
    matches!(&packet.transport, Transport::Icmp(icmp)
        if packet.protocol == protocol::ICMPV6 && matches!(icmp.kind, 130..=137 | 143))
}

/// Messages that a packet did not get where it should: that there is no way, or that it took too long.
fn is_unreachable(protocol: u8, kind: u8) -> bool {
    match protocol {
        protocol::ICMP => matches!(kind, 3 | 11),
        _ => matches!(kind, 1 | 3),
    }
}

#[cfg(test)]
mod tests;
