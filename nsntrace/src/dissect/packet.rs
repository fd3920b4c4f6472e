//! A captured packet, down to what its transport carries.

use std::net::{IpAddr, SocketAddr};

use etherparse::{Ipv6ExtensionSlice, LaxIpSlice};
use nsntrace_ebpf::linktype;

use super::{number, transport::Transport};

/// Bytes of the two addresses in an Ethernet frame.
const ADDRESSES: usize = 12;

/// Types of what is in a frame.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Where it is from.
    pub source: IpAddr,
    /// Where it goes.
    pub target: IpAddr,
    /// The number of its transport's protocol.
    pub protocol: u8,
    /// What is in it. Of fragments only the first one tells.
    pub transport: Transport<'a>,
    /// What it is a fragment of.
    pub fragment: Option<Fragment>,
}

/// A fragment of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What all of a packet's have in common, beside their addresses and protocol.
    pub id: u32,
    /// Whether the packet begins with it.
    pub is_first: bool,
}

impl<'a> Packet<'a> {
    /// Reads a packet of this link type, see [`linktype`], that had `wire_length` bytes. None where it is no IP.
    pub fn read(link_type: u16, bytes: &'a [u8], wire_length: u32) -> Option<Self> {
        let ip = match link_type {
            linktype::EN10MB => behind_ethernet(bytes)?,
            linktype::RAW => bytes,
            _ => return None,
        };
        let (ip, _) = LaxIpSlice::from_slice(ip).ok()?;
        let payload = ip.payload();
        let fragment = if payload.fragmented { fragment(&ip) } else { None };
        let protocol = payload.ip_number.0;
        let cut = if payload.incomplete { (wire_length as usize).saturating_sub(bytes.len()) } else { 0 };
        let transport = match fragment {
            Some(Fragment { is_first: false, .. }) => Transport::Other,
            _ => Transport::read(protocol, payload.payload, cut),
        };
        Some(Self { source: ip.source_addr(), target: ip.destination_addr(), protocol, transport, fragment })
    }

    /// The addresses with the ports of its transport, or with 0 where that has none: the sender's, then the receiver's.
    pub fn ends(&self) -> (SocketAddr, SocketAddr) {
        let (source, target) = match &self.transport {
            Transport::Tcp(tcp) => (tcp.source, tcp.target),
            Transport::Udp(udp) => (udp.source, udp.target),
            Transport::Icmp(_) | Transport::Other => (0, 0),
        };
        (SocketAddr::new(self.source, source), SocketAddr::new(self.target, target))
    }
}

/// The IP packet in an Ethernet frame, behind its VLAN tags.
fn behind_ethernet(frame: &[u8]) -> Option<&[u8]> {
    let mut rest = frame.get(ADDRESSES..)?;
    loop {
        match number(&mut rest)? {
            IPV4 | IPV6 => return Some(rest),
            VLAN | SERVICE_VLAN => drop(rest.split_off(..2)?),
            _ => return None,
        }
    }
}

/// Of a packet that is one. There is a header that says so then, and no extension is looked at behind that: what could not be
/// read of them etherparse's iterator takes for sound.
fn fragment(ip: &LaxIpSlice<'_>) -> Option<Fragment> {
    match ip {
        LaxIpSlice::Ipv4(ip) => {
            let header = ip.header();
            let is_first = header.fragments_offset().value() == 0;
            Some(Fragment { id: header.identification().into(), is_first })
        }
        LaxIpSlice::Ipv6(ip) => ip.extensions().clone().into_iter().find_map(|extension| match extension {
            Ipv6ExtensionSlice::Fragment(header) => {
                let is_first = header.fragment_offset().value() == 0;
                Some(Fragment { id: header.identification(), is_first })
            }
            _ => None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            frames::{self, Flag},
            transport::Udp,
        },
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
    fn tags_are_skipped() {
        let frame = frames::udp("10.0.0.1:1000", "10.0.0.2:53", b"word");
        let tagged = [&frame[..12], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2], &frame[12..]].concat();
        let packet = Packet::read(linktype::EN10MB, &tagged, 54).expect("a packet");
        assert_eq!(packet.ends().1.port(), 53);
        assert_eq!(Packet::read(linktype::EN10MB, &tagged[..19], 54), None);
    }

    #[test]
    fn what_is_cut_has_its_protocol() {
        let frame = frames::udp("10.0.0.1:1000", "10.0.0.2:53", b"word");
        let cut = Packet::read(linktype::EN10MB, &frame[..36], 46).expect("a packet");
        assert_eq!((cut.protocol, cut.transport), (17, Transport::Other));
        let ports = Packet::read(linktype::EN10MB, &frame[..38], 46).expect("a packet");
        assert_eq!(ports.transport, Transport::Udp(Udp { source: 1000, target: 53, payload: b"" }));
        assert_eq!(Packet::read(linktype::EN10MB, &frame[..12], 46), None);
        assert_eq!(Packet::read(147, &frame, 46), None);
    }

    #[test]
    fn the_first_of_fragments_tells_the_ports() {
        let mut frame = frames::udp("10.0.0.1:1000", "10.0.0.2:53", b"word");
        frame[19] = 7;
        // More fragments follow.
        frame[20] = 0x20;
        let first = Packet::read(linktype::EN10MB, &frame, 46).expect("a packet");
        assert_eq!(first.fragment, Some(Fragment { id: 7, is_first: true }));
        assert_eq!(first.ends().0.port(), 1000);
        // It is the last, and not the first.
        frame[20..22].copy_from_slice(&[0, 1]);
        let last = Packet::read(linktype::EN10MB, &frame, 46).expect("a packet");
        assert_eq!(last.fragment, Some(Fragment { id: 7, is_first: false }));
        assert_eq!((last.protocol, last.transport), (17, Transport::Other));
    }

    #[test]
    fn fragments_of_ipv6_are_told_by_their_header() {
        let mut frame = frames::udp("[fd00::1]:1000", "[fd00::2]:53", b"word");
        frame[20] = 44;
        frame[19] += 8;
        for (offset, is_first) in [([0, 1], true), ([0, 8], false)] {
            let header = [17, 0, offset[0], offset[1], 0, 0, 0, 9];
            let frame = [&frame[..54], &header, &frame[54..]].concat();
            let packet = Packet::read(linktype::EN10MB, &frame, 74).expect("a packet");
            assert_eq!(packet.fragment, Some(Fragment { id: 9, is_first }));
            assert_eq!((packet.protocol, packet.ends().1.port()), (17, if is_first { 53 } else { 0 }));
        }
    }
}
