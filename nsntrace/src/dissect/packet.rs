//! A captured packet, down to what its transport carries.

use std::net::{IpAddr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use nsntrace_ebpf::linktype;

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Where it is from.
    pub source: IpAddr,
    /// Where it goes.
    pub target: IpAddr,
    /// What is in it.
    pub transport: Transport<'a>,
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport<'a> {
    /// A segment of TCP.
    Tcp(Tcp<'a>),
    /// A datagram of UDP.
    Udp(Udp<'a>),
    /// A message of ICMP or ICMPv6.
    Icmp(Icmp<'a>),
    /// Another protocol, by its number; also a fragment, or a packet that was cut before its transport begins.
    Other(u8),
}

/// A segment of TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub target: u16,
    /// The number of its first byte.
    pub sequence: u32,
    /// Whether it begins a connection.
    pub syn: bool,
    /// Whether it acknowledges anything.
    pub ack: bool,
    /// Whether it is the sender's last.
    pub fin: bool,
    /// Whether it ends the connection at once.
    pub rst: bool,
    /// Its payload, as far as it was kept.
    pub payload: &'a [u8],
    /// Bytes of payload on the wire.
    pub length: u32,
}

/// A datagram of UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Udp<'a> {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub target: u16,
    /// Its payload, as far as it was kept.
    pub payload: &'a [u8],
}

/// A message of ICMP or ICMPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp<'a> {
    /// Its type.
    pub kind: u8,
    /// What stands behind its header of 8 bytes: of the packet that an error is about, the beginning.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet of this link type, see [`linktype`], that had `wire_length` bytes. None where it is no IP.
    pub fn read(link_type: u16, bytes: &'a [u8], wire_length: u32) -> Option<Self> {
        let sliced = match link_type {
            linktype::EN10MB => LaxSlicedPacket::from_ethernet(bytes).ok()?,
            linktype::RAW => LaxSlicedPacket::from_ip(bytes).ok()?,
            _ => return None,
        };
        let (source, target, payload) = match sliced.net.as_ref()? {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                (header.source_addr().into(), header.destination_addr().into(), ip.payload())
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                (header.source_addr().into(), header.destination_addr().into(), ip.payload())
            }
            LaxNetSlice::Arp(_) => return None,
        };
        let cut = if payload.incomplete { (wire_length as usize).saturating_sub(bytes.len()) } else { 0 };
        let transport = match sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => Transport::Tcp(Tcp {
                source: tcp.source_port(),
                target: tcp.destination_port(),
                sequence: tcp.sequence_number(),
                syn: tcp.syn(),
                ack: tcp.ack(),
                fin: tcp.fin(),
                rst: tcp.rst(),
                payload: tcp.payload(),
                length: u32::try_from(tcp.payload().len() + cut).unwrap_or(u32::MAX),
            }),
            Some(TransportSlice::Udp(udp)) => Transport::Udp(Udp {
                source: udp.source_port(),
                target: udp.destination_port(),
                payload: udp.payload(),
            }),
            Some(TransportSlice::Icmpv4(icmp)) => {
                Transport::Icmp(Icmp { kind: icmp.type_u8(), payload: behind(icmp.slice()) })
            }
            Some(TransportSlice::Icmpv6(icmp)) => {
                Transport::Icmp(Icmp { kind: icmp.type_u8(), payload: behind(icmp.slice()) })
            }
            _ => Transport::Other(payload.ip_number.0),
        };
        Some(Self { source, target, transport })
    }

    /// The addresses with the ports of its transport, or with 0 where that has none: the sender's, then the receiver's.
    pub fn ends(&self) -> (SocketAddr, SocketAddr) {
        let (source, target) = match &self.transport {
            Transport::Tcp(tcp) => (tcp.source, tcp.target),
            Transport::Udp(udp) => (udp.source, udp.target),
            Transport::Icmp(_) | Transport::Other(_) => (0, 0),
        };
        (SocketAddr::new(self.source, source), SocketAddr::new(self.target, target))
    }
}

/// What is behind a header of ICMP.
fn behind(message: &[u8]) -> &[u8] {
    message.get(8..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{
        super::frames::{self, Flag},
        *,
    };

    #[test]
    fn a_segment_is_read_and_its_length_on_the_wire() {
        for (from, to) in [("10.0.0.1:1000", "10.0.0.2:80"), ("[fd00::1]:1000", "[fd00::2]:80")] {
            let frame = frames::tcp(from, to, Flag::SynAck, 7, &[5; 600]);
            let wire_length = u32::try_from(frame.len()).expect("short");
            for (link_type, from_ip) in [(linktype::EN10MB, 0), (linktype::RAW, 14)] {
                let bytes = &frame[from_ip..];
                for kept in [bytes.len(), bytes.len() - 500] {
                    let packet = Packet::read(
                        link_type,
                        &bytes[..kept],
                        wire_length - u32::try_from(from_ip).expect("small"),
                    );
                    let packet = packet.expect("a packet");
                    assert_eq!(packet.ends(), (from.parse().expect("valid"), to.parse().expect("valid")));
                    let Transport::Tcp(tcp) = packet.transport else { panic!("{packet:?}") };
                    assert_eq!(
                        (tcp.sequence, tcp.length, tcp.payload.len()),
                        (7, 600, 600 + kept - bytes.len())
                    );
                    assert!(tcp.syn && tcp.ack && !tcp.fin && !tcp.rst);
                }
            }
        }
    }

    #[test]
    fn a_datagram_is_read() {
        let frame = frames::udp("10.0.0.1:1000", "10.0.0.2:53", b"word");
        let packet = Packet::read(linktype::EN10MB, &frame, 46).expect("a packet");
        let udp = Udp { source: 1000, target: 53, payload: b"word" };
        assert_eq!(packet.transport, Transport::Udp(udp));
    }

    #[test]
    fn what_is_cut_or_in_fragments_has_its_protocol() {
        let mut frame = frames::udp("10.0.0.1:1000", "10.0.0.2:53", b"word");
        let cut = Packet::read(linktype::EN10MB, &frame[..36], 46).expect("a packet");
        assert_eq!(cut.transport, Transport::Other(17));
        // More fragments follow.
        frame[20] = 0x20;
        let fragment = Packet::read(linktype::EN10MB, &frame, 46).expect("a packet");
        assert_eq!(fragment.transport, Transport::Other(17));
        assert_eq!(Packet::read(linktype::EN10MB, &frame[..12], 46), None);
        assert_eq!(Packet::read(147, &frame, 46), None);
    }
}
