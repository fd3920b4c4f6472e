//! Frames for tests.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep, ip_number};

/// What a segment of TCP is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    Syn,
    SynAck,
    Ack,
    Fin,
    Rst,
}

/// An Ethernet frame with a segment.
pub(crate) fn tcp(from: &str, to: &str, flag: Flag, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends(from, to);
    let segment = ip(from, to).tcp(from.port(), to.port(), sequence, 1000);
    let segment = match flag {
        Flag::Syn => segment.syn(),
        Flag::SynAck => segment.syn().ack(1),
        Flag::Ack => segment.ack(1),
        Flag::Fin => segment.fin().ack(1),
        Flag::Rst => segment.rst(),
    };
    let mut frame = Vec::new();
    segment.write(&mut frame, payload).expect("memory takes it");
    frame
}

/// An Ethernet frame with a datagram.
pub(crate) fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends(from, to);
    let mut frame = Vec::new();
    ip(from, to).udp(from.port(), to.port()).write(&mut frame, payload).expect("memory takes it");
    frame
}

/// An Ethernet frame in which a router says that the packet which begins so cannot get where it should.
pub(crate) fn unreachable(from: &str, to: &str, beginning: &[u8]) -> Vec<u8> {
    let (from, to) = ends(&format!("{from}:0"), &format!("{to}:0"));
    let kind =
        etherparse::Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Host);
    let mut frame = Vec::new();
    ip(from, to).icmpv4(kind).write(&mut frame, beginning).expect("memory takes it");
    frame
}

/// A client's first message of TLS, with a server's name.
pub(crate) fn client_hello(random: [u8; 32], name: &str) -> Vec<u8> {
    let sized =
        |bytes: Vec<u8>| [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], &bytes].concat();
    let name = sized([&[0][..], &sized(name.as_bytes().to_vec())].concat());
    let other = [&[0, 43][..], &sized(vec![2, 3, 4])].concat();
    let extensions = sized([other, vec![0, 0], sized(name)].concat());
    let body = [&[3, 3][..], &random, &[0], &sized(vec![0x13, 1]), &[1, 0], &extensions].concat();
    let message = [&[1, 0][..], &sized(body)].concat();
    [&[22, 3, 1][..], &sized(message)].concat()
}

fn ends(from: &str, to: &str) -> (SocketAddr, SocketAddr) {
    (from.parse().expect("an address"), to.parse().expect("an address"))
}

fn ip(from: SocketAddr, to: SocketAddr) -> PacketBuilderStep<IpHeaders> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = Ipv4Header::new(0, 64, ip_number::TCP, from.octets(), to.octets()).expect("short");
            ethernet.ip(IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                source: from.octets(),
                destination: to.octets(),
                hop_limit: 64,
                ..Ipv6Header::default()
            };
            ethernet.ip(IpHeaders::Ipv6(header, Default::default()))
        }
        _ => panic!("two families"),
    }
}
