//! What an IP packet carries: the heads of TCP, UDP and ICMP, as far as they were kept.

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport<'a> {
    /// A segment of TCP.
    Tcp(Tcp<'a>),
    /// A datagram of UDP.
    Udp(Udp<'a>),
    /// A message of ICMP or ICMPv6.
    Icmp(Icmp<'a>),
    /// Another protocol; also what was cut before its ports.
    Other,
}

/// A segment of TCP. Where it was cut, flags are not set and numbers are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub target: u16,
    /// The number of its first byte.
    pub sequence: u32,
    /// The number of the first byte that the sender still waits for, if `ack` is set.
    pub acknowledged: u32,
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
    /// What it is of that type; 0 where it was cut.
    pub code: u8,
    /// What stands behind its header of 8 bytes: of the packet that an error is about, the beginning.
    pub payload: &'a [u8],
}

/// Numbers of protocols.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// Bytes of the headers, TCP's without options.
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;

impl<'a> Transport<'a> {
    /// Reads what an IP packet of this protocol carries, of which `cut` bytes at the end were not kept.
    pub fn read(protocol: u8, bytes: &'a [u8], cut: usize) -> Self {
        let read = match protocol {
            protocol::TCP => Tcp::read(bytes, cut).map(Self::Tcp),
            protocol::UDP => Udp::read(bytes).map(Self::Udp),
            protocol::ICMP | protocol::ICMPV6 => Icmp::read(bytes).map(Self::Icmp),
            _ => None,
        };
        read.unwrap_or(Self::Other)
    }
}

impl<'a> Tcp<'a> {
    fn read(bytes: &'a [u8], cut: usize) -> Option<Self> {
        let [a, b, c, d] = *bytes.first_chunk()?;
        let word = |at: usize| {
            bytes
                .get(at..)
                .and_then(<[u8]>::first_chunk)
                .map_or(0, |word: &[u8; 4]| u32::from_be_bytes(*word))
        };
        let [offset, flags] = bytes.get(12..14).map_or([0; 2], |pair| [pair[0], pair[1]]);
        let header = usize::from(offset >> 4) * 4;
        let is_known = header >= TCP_HEADER;
        let length = if is_known { (bytes.len() + cut).saturating_sub(header) } else { 0 };
        Some(Self {
            source: u16::from_be_bytes([a, b]),
            target: u16::from_be_bytes([c, d]),
            sequence: word(4),
            acknowledged: word(8),
            syn: flags & 2 != 0,
            ack: flags & 16 != 0,
            fin: flags & 1 != 0,
            rst: flags & 4 != 0,
            payload: bytes.get(header..).filter(|_| is_known).unwrap_or_default(),
            length: u32::try_from(length).unwrap_or(u32::MAX),
        })
    }
}

impl<'a> Udp<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let [a, b, c, d] = *bytes.first_chunk()?;
        Some(Self {
            source: u16::from_be_bytes([a, b]),
            target: u16::from_be_bytes([c, d]),
            payload: bytes.get(UDP_HEADER..).unwrap_or_default(),
        })
    }
}

impl<'a> Icmp<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        Some(Self {
            kind: *bytes.first()?,
            code: bytes.get(1).copied().unwrap_or_default(),
            payload: bytes.get(ICMP_HEADER..).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ports 1 and 2, sequence 3, acknowledged 4, a header of 24 bytes, SYN and ACK.
    const SEGMENT: [u8; 28] =
        [0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x60, 0x12, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 9, 9, 9, 9];

    #[test]
    fn a_segment_is_read_as_far_as_it_was_kept() {
        for kept in 0..=SEGMENT.len() {
            let cut = SEGMENT.len() - kept;
            let Transport::Tcp(tcp) = Transport::read(protocol::TCP, &SEGMENT[..kept], cut) else {
                assert!(kept < 4, "{kept}");
                continue;
            };
            assert_eq!((tcp.source, tcp.target, tcp.sequence), (1, 2, if kept < 8 { 0 } else { 3 }));
            assert_eq!((tcp.syn && tcp.ack, tcp.fin || tcp.rst), (kept >= 14, false));
            if kept >= 14 {
                assert_eq!(
                    (tcp.length, tcp.payload.len(), tcp.acknowledged),
                    (4, kept.saturating_sub(24), 4)
                );
            }
        }
    }

    #[test]
    fn the_beginning_that_an_error_has_tells_the_ports() {
        // A router sends back the 8 bytes behind the IP header, and no more.
        let Transport::Tcp(tcp) = Transport::read(protocol::TCP, &SEGMENT[..8], 0) else { panic!("no TCP") };
        assert_eq!((tcp.source, tcp.target, tcp.sequence, tcp.syn), (1, 2, 3, false));
    }
}
