use std::{fs::File, path::PathBuf};

use nsntrace_ebpf::linktype;
use pcap_file::{TsResolution, pcap::PcapReader, pcapng::PcapNgReader};
use tempfile::TempDir;

use super::*;
use crate::{
    config::{Format, Outfile, Rotation},
    output::section::{Interface, Section},
};

/// A writer of a file in this format, where that is, and its folder.
fn writer(format: Format) -> (PathBuf, Writer, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x");
    let files = Series::open(&Outfile::Path(path.clone()), Rotation::default(), None).expect("opened");
    let link = Interface { index: 2, link_type: linktype::EN10MB, ..Interface::default() };
    let section = Section {
        snaplen: 1 << 18,
        filter: None,
        link_type: linktype::EN10MB,
        interfaces: vec![link],
        name_of: |_| None,
    };
    (path, Writer::new(files, Encoder::new(format, section)), folder)
}

/// The header of a packet of so many bytes.
fn of_bytes(length: usize) -> RecordHeader {
    let length = u32::try_from(length).expect("short");
    RecordHeader {
        wire_len: length,
        cap_len: length,
        linktype: linktype::EN10MB,
        ifindex: 2,
        ..RecordHeader::default()
    }
}

/// What a file of this format holds when a packet was written to it.
fn written(format: Format, header: &RecordHeader, packet: &[u8]) -> Vec<u8> {
    let (path, mut writer, _folder) = writer(format);
    writer.begin(Moment::default()).expect("begun");
    writer.packet(Duration::new(5, 6), header, packet).expect("taken");
    assert_eq!(writer.packets(), 0);
    writer.end(Moment::default()).expect("ended");
    assert_eq!(writer.packets(), 1);
    std::fs::read(path).expect("there")
}

#[test]
fn a_large_packet_stands_between_its_neighbours() {
    let large: Vec<u8> = (0..70_001_u32).map(|n| n.to_le_bytes()[0]).collect();
    for format in [Format::Pcap, Format::Pcapng] {
        let (path, mut writer, _folder) = writer(format);
        writer.begin(Moment::default()).expect("begun");
        for packet in [&large[..20], &large, &large[..70_000], &large[..21]] {
            writer.packet(Duration::new(5, 6), &of_bytes(packet.len()), packet).expect("taken");
        }
        assert_eq!(writer.packets(), 3);
        writer.end(Moment::default()).expect("ended");
        assert_eq!(writer.packets(), 4);
        let bytes = std::fs::read(path).expect("there");
        let packets: Vec<Vec<u8>> = match format {
            Format::Pcap => {
                let mut reader = PcapReader::new(&bytes[..]).expect("a pcap");
                std::iter::from_fn(|| Some(reader.next_packet()?.expect("whole").data.into_owned())).collect()
            }
            Format::Pcapng => {
                let mut reader = PcapNgReader::new(&bytes[..]).expect("a pcapng");
                let mut packets = Vec::new();
                while let Some(block) = reader.next_block() {
                    let block = block.expect("whole").into_owned();
                    packets.extend(block.into_enhanced_packet().map(|packet| packet.data.into_owned()));
                }
                packets
            }
        };
        assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [20, 70_001, 70_000, 21]);
        assert!(packets.iter().all(|packet| large.starts_with(packet)));
    }
}

#[test]
fn both_formats_hold_the_packet_as_it_was() {
    let header = RecordHeader {
        wire_len: 60,
        cap_len: 20,
        vlan_proto: 0x8100,
        vlan_tci: 5,
        linktype: linktype::EN10MB,
        ifindex: 2,
        ..RecordHeader::default()
    };
    let tagged = [&[7; 12][..], &[0x81, 0, 0, 5], &[7; 8]].concat();

    let bytes = written(Format::Pcap, &header, &[7; 20]);
    let mut reader = PcapReader::new(&bytes[..]).expect("a pcap");
    assert_eq!(reader.header().ts_resolution, TsResolution::NanoSecond);
    let packet = reader.next_packet().expect("one").expect("whole");
    assert_eq!((packet.timestamp, packet.orig_len), (Duration::new(5, 6), 64));
    assert_eq!(packet.data[..], tagged);
    assert!(reader.next_packet().is_none());

    let bytes = written(Format::Pcapng, &header, &[7; 20]);
    let mut reader = PcapNgReader::new(&bytes[..]).expect("a pcapng");
    let mut next = || reader.next_block().expect("one").expect("whole").into_owned();
    next().into_interface_description().expect("a description");
    let packet = next().into_enhanced_packet().expect("a packet");
    assert_eq!((packet.timestamp, packet.original_len), (Duration::new(5, 6), 64));
    assert_eq!(packet.data[..], tagged);
    next().into_interface_statistics().expect("statistics");
    assert!(reader.next_block().is_none());
}

/// The types of blocks in this file, but for the head's.
fn blocks(path: &std::path::Path) -> Vec<u32> {
    let bytes = std::fs::read(path).expect("there");
    let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("a word"));
    let mut at = 0;
    let mut kinds = Vec::new();
    while at < bytes.len() {
        kinds.push(word(at));
        at += word(at + 4) as usize;
    }
    kinds[2..].to_vec()
}

#[test]
fn an_answer_waits_for_its_secrets() {
    use std::io::Write;

    use crate::{
        dissect::frames::{Flag, client_hello, tcp},
        tls_keys::KeyFile,
    };

    const SECRETS: u32 = 10;
    const PACKET: u32 = 6;
    let (path, writer, _folder) = writer(Format::Pcapng);
    let log = tempfile::NamedTempFile::new().expect("a file");
    let mut logged = File::options().append(true).open(log.path()).expect("opened");
    let keys = Keys::new(KeyFile::new(log.into_file()), None);
    let mut writer = writer.with_keys(Some(keys));
    writer.begin(Moment::default()).expect("begun");

    let (client, server) = ("10.0.0.1:1000", "10.0.0.2:443");
    let add = |writer: &mut Writer, frame: Vec<u8>| {
        writer.packet(Duration::new(5, 6), &of_bytes(frame.len()), &frame).expect("taken");
    };
    writer.take_keys();
    add(&mut writer, tcp(client, server, Flag::Ack, 1, &client_hello([0xab; 32], "host")));
    add(&mut writer, tcp(server, client, Flag::Ack, 1, b"answer"));
    add(&mut writer, tcp("10.0.0.1:1001", server, Flag::Syn, 1, b""));
    writer.flush().expect("written");
    assert!(writer.is_holding());
    assert_eq!((blocks(&path), writer.packets()), (vec![PACKET], 1));

    writeln!(logged, "CLIENT_RANDOM {} {}", "ab".repeat(32), "cd".repeat(48)).expect("logged");
    writer.take_keys();
    add(&mut writer, tcp(client, server, Flag::Ack, 1, b"more"));
    writer.flush().expect("written");
    assert!(!writer.is_holding());
    assert_eq!((blocks(&path), writer.packets()), (vec![PACKET, SECRETS, PACKET, PACKET, PACKET], 4));
    writer.end(Moment::default()).expect("ended");
    assert_eq!(writer.packets(), 4);
}
