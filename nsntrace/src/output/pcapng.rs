//! A pcapng: the packets, and what was lost.
//!
//! The format is that of the IETF's draft-ietf-opsawg-pcapng.

mod names;
mod owner;
mod secrets;
mod statistics;

use std::{net::IpAddr, time::Duration};

use byteorder_slice::LittleEndian;
use nsntrace_ebpf::RecordHeader;
use pcap_file::pcapng::{PcapNgBlock, blocks::ENHANCED_PACKET_BLOCK};

pub use statistics::Moment;

use super::{
    frame::Frame,
    section::{Interface, Section, header},
};
use crate::ownership::Owner;

/// Makes the blocks of a pcapng.
#[derive(Debug)]
pub(super) struct Pcapng {
    section: Section,
    /// The interfaces described in this file, by the numbers that they have there.
    sources: Vec<Source>,
    /// The number of the latest packet's.
    latest: usize,
    /// The options that tell the latest packet's owner.
    owner: Vec<u8>,
}

/// What packets of one interface have in common.
#[derive(Clone, Copy, Debug)]
struct Source {
    index: u32,
    link_type: u16,
    packets: u64,
}

/// Bytes of an enhanced packet block before its packet, and behind it: but for what it tells of its owner.
const BEFORE: usize = 7 * size_of::<u32>();
const BEHIND: usize = 4 * size_of::<u32>();

/// The head of the option epb_flags: its code, and its length above that.
const FLAGS: u32 = 4 << 16 | 2;

impl Pcapng {
    pub(super) fn new(section: Section) -> Self {
        Self { section, sources: Vec::new(), latest: 0, owner: Vec::new() }
    }

    /// Appends what stands before the packets of a file.
    pub(super) fn begin(&mut self, out: &mut Vec<u8>) {
        append(out, header());
        self.sources.clear();
        self.latest = 0;
        for interface in &self.section.interfaces {
            append(out, self.section.description(interface));
            self.sources.push(interface.into());
        }
    }

    /// Appends a packet that passed at `time` since the epoch, and its owner where that is known. What is new about
    /// its interface goes before it. Returns the place of its frame.
    pub(super) fn packet(
        &mut self,
        out: &mut Vec<u8>,
        time: Duration,
        header: &RecordHeader,
        owner: Option<&Owner<'_>>,
        frame: &Frame<'_>,
    ) -> usize {
        let number = self.source(out, header);
        let padded = frame.length().next_multiple_of(4);
        owner::options(&mut self.owner, owner);
        let total = word(BEFORE + padded + BEHIND + self.owner.len());
        let [low, high] = halves(nanoseconds(time));
        let before =
            [ENHANCED_PACKET_BLOCK, total, word(number), high, low, frame.length_u32(), frame.wire_length()];
        let flags = [FLAGS, header.direction.into()];
        let end_of_options = 0;
        out.extend_from_slice(before.map(u32::to_le_bytes).as_flattened());
        let place = frame.append_to(out);
        out.resize(out.len() + padded - frame.length(), 0);
        out.extend_from_slice(flags.map(u32::to_le_bytes).as_flattened());
        out.extend_from_slice(&self.owner);
        out.extend_from_slice([end_of_options, total].map(u32::to_le_bytes).as_flattened());
        place
    }

    /// Appends names of addresses, if there are any.
    pub(super) fn names(out: &mut Vec<u8>, names: &[(IpAddr, String)]) {
        if let Some(block) = names::block(names) {
            append(out, block);
        }
    }

    /// How many whole packets these blocks hold, and up to where they are whole, in bytes.
    pub(super) fn whole(blocks: &[u8]) -> (u64, usize) {
        let (mut packets, mut end) = (0, 0);
        while let Some((head, _)) = blocks[end..].split_first_chunk::<8>() {
            let [kind, length] = [&head[..4], &head[4..]]
                .map(|word| u32::from_le_bytes(*word.first_chunk().expect("four bytes")));
            let next = end + length as usize;
            if next > blocks.len() {
                break;
            }
            packets += u64::from(kind == ENHANCED_PACKET_BLOCK);
            end = next;
        }
        (packets, end)
    }

    /// The number of a packet's interface in this file.
    fn source(&mut self, out: &mut Vec<u8>, header: &RecordHeader) -> usize {
        let is_its = |source: &Source| (source.index, source.link_type) == (header.ifindex, header.linktype);
        if !self.sources.get(self.latest).is_some_and(is_its) {
            self.latest = self.sources.iter().position(is_its).unwrap_or_else(|| {
                let (index, link_type) = (header.ifindex, header.linktype);
                let name = (self.section.name_of)(index);
                let interface = Interface { index, link_type, name, ..Interface::default() };
                append(out, self.section.description(&interface));
                self.sources.push((&interface).into());
                self.sources.len() - 1
            });
        }
        self.sources[self.latest].packets += 1;
        self.latest
    }
}

impl From<&Interface> for Source {
    fn from(interface: &Interface) -> Self {
        Self { index: interface.index, link_type: interface.link_type, packets: 0 }
    }
}

fn append<'a>(out: &mut Vec<u8>, block: impl PcapNgBlock<'a>) {
    block.into_block().write_to::<LittleEndian, _>(out).expect("memory takes it");
}

/// Nanoseconds since the epoch, until 2554.
fn nanoseconds(time: Duration) -> u64 {
    time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())
}

/// The lower half, and the upper one.
fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes)
}

/// Lengths and numbers are bounded: by the snapshot length, the number of interfaces, and what a block of comments takes.
fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use nsntrace_ebpf::{Counters, direction, linktype};
    use pcap_file::pcapng::{
        Block, PcapNgReader,
        blocks::{
            enhanced_packet::EnhancedPacketOption,
            interface_statistics::InterfaceStatisticsOption as Counted, name_resolution::Record,
        },
    };

    use super::*;

    const RAW: u16 = 101;

    fn section() -> Section {
        let link = Interface { index: 2, link_type: linktype::EN10MB, ..Interface::default() };
        Section {
            snaplen: 100,
            filter: None,
            link_type: linktype::EN10MB,
            interfaces: vec![link],
            name_of: |_| None,
        }
    }

    fn header(ifindex: u32, linktype: u16, direction: u8) -> RecordHeader {
        RecordHeader { ifindex, linktype, direction, wire_len: 60, ..RecordHeader::default() }
    }

    fn add(pcapng: &mut Pcapng, out: &mut Vec<u8>, header: &RecordHeader, packet: &[u8]) {
        let frame = Frame::new(header, packet, 100, false);
        pcapng.packet(out, Duration::new(5_000_000_000, 6), header, None, &frame);
    }

    fn blocks(bytes: &[u8]) -> Vec<Block<'static>> {
        let mut reader = PcapNgReader::new(bytes).expect("a pcapng");
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            blocks.push(block.expect("whole").into_owned());
        }
        blocks
    }

    #[test]
    fn packets_stand_as_they_were() {
        let mut out = Vec::new();
        let mut pcapng = Pcapng::new(section());
        pcapng.begin(&mut out);
        for length in 0..9 {
            add(&mut pcapng, &mut out, &header(2, linktype::EN10MB, direction::OUTBOUND), &vec![7; length]);
        }
        let blocks = blocks(&out);
        let packets = blocks.into_iter().filter_map(Block::into_enhanced_packet);
        for (length, packet) in packets.enumerate() {
            assert_eq!(packet.timestamp, Duration::new(5_000_000_000, 6));
            assert_eq!((packet.interface_id, packet.original_len), (0, 60));
            assert_eq!(packet.data[..], vec![7; length]);
            assert_eq!(packet.options, [EnhancedPacketOption::Flags(2)]);
        }
        assert_eq!(Pcapng::whole(&out), (9, out.len()));
    }

    #[test]
    fn an_interface_that_comes_late_is_described_before_its_packet() {
        let mut pcapng = Pcapng::new(section());
        // In each file again.
        for _ in 0..2 {
            let mut out = Vec::new();
            pcapng.begin(&mut out);
            let (link, late) = (header(2, linktype::EN10MB, 1), header(7, RAW, 2));
            for header in [link, late, link, late, late] {
                add(&mut pcapng, &mut out, &header, &[7; 20]);
            }
            pcapng.end(&mut out, &Moment::default(), &Moment::default(), Vec::new());
            let kinds = blocks(&out).into_iter().map(|block| match block {
                Block::InterfaceDescription(block) => format!("link type {}", u32::from(block.linktype)),
                Block::EnhancedPacket(block) => format!("packet of {}", block.interface_id),
                Block::InterfaceStatistics(block) => {
                    let delivered = block.options.iter().find_map(|option| match option {
                        Counted::IsbUsrDeliv(packets) => Some(*packets),
                        _ => None,
                    });
                    format!("{} of {}", delivered.expect("counted"), block.interface_id)
                }
                other => format!("{other:?}"),
            });
            let expected = [
                "link type 1",
                "packet of 0",
                "link type 101",
                "packet of 1",
                "packet of 0",
                "packet of 1",
                "packet of 1",
                "2 of 0",
                "3 of 1",
            ];
            assert_eq!(kinds.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_file_without_a_packet_has_an_interface() {
        let mut out = Vec::new();
        let mut pcapng = Pcapng::new(Section { interfaces: Vec::new(), link_type: RAW, ..section() });
        pcapng.begin(&mut out);
        pcapng.end(&mut out, &Moment::default(), &Moment::default(), vec!["a line".into()]);
        let [Block::InterfaceDescription(interface), Block::InterfaceStatistics(statistics)] =
            &blocks(&out)[..]
        else {
            panic!("{:?}", blocks(&out))
        };
        assert_eq!(u32::from(interface.linktype), u32::from(RAW));
        assert_eq!(statistics.options.last(), Some(&Counted::Comment("a line".into())));
    }

    #[test]
    fn no_block_is_too_large_for_its_readers() {
        let mut out = Vec::new();
        let mut pcapng = Pcapng::new(section());
        pcapng.begin(&mut out);
        let lines: Vec<_> = (0..2000).map(|number| format!("{number} {}", "x".repeat(9000))).collect();
        pcapng.end(&mut out, &Moment::default(), &Moment::default(), lines.clone());
        let mut rest = &out[..];
        while let Some((head, _)) = rest.split_first_chunk::<8>() {
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            assert!(length < 2 << 20, "{length}");
            rest = &rest[length..];
        }
        let mut found = Vec::new();
        for block in blocks(&out).into_iter().filter_map(Block::into_interface_statistics) {
            assert_eq!(block.interface_id, 0);
            found.extend(block.options.into_iter().filter_map(|option| match option {
                Counted::Comment(line) => Some(line.into_owned()),
                _ => None,
            }));
        }
        assert_eq!(found, lines);
    }

    #[test]
    fn only_what_was_counted_meanwhile_is_in_the_statistics() {
        let mut out = Vec::new();
        let mut pcapng = Pcapng::new(section());
        pcapng.begin(&mut out);
        let length = out.len();
        let from = Counters { filtered: 3, matched: 10, captured: 9, dropped: 1, cut: 0 };
        let to = Counters { filtered: 38, matched: 65, captured: 60, dropped: 5, cut: 0 };
        let moment = |seconds, counters| Moment { time: Duration::from_secs(seconds), counters };
        pcapng.end(&mut out, &moment(1, from), &moment(5_000_000_000, to), Vec::new());
        // The upper half first: 0x4563_9182_44f4_0000 nanoseconds.
        let end = [0x82, 0x91, 0x63, 0x45, 0, 0, 0xf4, 0x44];
        let start = [0, 0, 0, 0, 0, 0xca, 0x9a, 0x3b];
        for (at, time) in [(12, end), (24, start), (36, end)] {
            assert_eq!(out[length + at..][..8], time, "{at}");
        }
        let block = blocks(&out).pop().and_then(Block::into_interface_statistics).expect("statistics");
        assert_eq!(
            block.options[2..],
            [
                Counted::IsbIfRecv(90),
                Counted::IsbIfDrop(4),
                Counted::IsbFilterAccept(55),
                Counted::IsbUsrDeliv(0)
            ]
        );
    }

    #[test]
    fn names_stand_with_their_addresses() {
        let mut out = Vec::new();
        let mut pcapng = Pcapng::new(section());
        pcapng.begin(&mut out);
        let length = out.len();
        Pcapng::names(&mut out, &[]);
        assert_eq!(out.len(), length);
        let six: IpAddr = "fd00::1".parse().expect("valid");
        Pcapng::names(&mut out, &[([10, 0, 0, 1].into(), "a.test".into()), (six, "b.test".into())]);
        let block = blocks(&out).pop().and_then(Block::into_name_resolution).expect("names");
        let [Record::Ipv4(four), Record::Ipv6(six)] = &block.records[..] else { panic!("{block:?}") };
        assert_eq!((&four.ip_addr[..], &four.names[..]), (&[10, 0, 0, 1][..], &["a.test".into()][..]));
        assert_eq!((six.ip_addr[0], six.ip_addr[15], &six.names[..]), (0xfd, 1, &["b.test".into()][..]));
        assert_eq!(Pcapng::whole(&out), (0, out.len()));
    }

    #[test]
    fn what_is_cut_is_not_whole() {
        let mut out = Vec::new();
        let mut pcapng = Pcapng::new(section());
        let late = header(7, RAW, 1);
        add(&mut pcapng, &mut out, &late, &[7; 9]);
        let described = Pcapng::whole(&out[..out.len() - 1]);
        assert_eq!(described.0, 0);
        let first = out.len();
        add(&mut pcapng, &mut out, &late, &[7; 9]);
        for end in 0..out.len() {
            let expected = match end {
                end if end < described.1 => (0, 0),
                end if end < first => described,
                _ => (1, first),
            };
            assert_eq!(Pcapng::whole(&out[..end]), expected, "{end}");
        }
    }
}
