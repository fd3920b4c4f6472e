//! A nanosecond pcap, written in blocks of whole records.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    time::Duration,
};

use byteorder_slice::LittleEndian;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nsntrace_ebpf::RecordHeader;
use pcap_file::{
    DataLink, Endianness, PcapError, TsResolution,
    pcap::{PcapHeader, RawPcapPacket},
};

use super::trace_file::TraceFile;

/// What is gathered before it is written, in bytes.
const BLOCK: usize = 256 << 10;

/// Bytes of a record before its packet.
const RECORD_HEADER: usize = 16;

/// Where in an Ethernet frame a VLAN tag stands: after the two addresses.
const TAG_AT: usize = 12;

/// Bytes of a VLAN tag.
const TAG: usize = 4;

/// Writes packets to a trace file.
pub struct PcapWriter {
    file: TraceFile,
    snaplen: u32,
    /// Whole records that are not written yet.
    block: Vec<u8>,
    /// Frames with their tag put back.
    tagged: Vec<u8>,
    /// Packets written.
    packets: u64,
    /// Bytes written that belong to whole records.
    length: u64,
}

impl PcapWriter {
    /// A writer of packets that are at most `snaplen` bytes long.
    pub fn new(file: TraceFile, snaplen: u32) -> Self {
        Self {
            file,
            snaplen,
            block: Vec::with_capacity(2 * BLOCK),
            tagged: Vec::new(),
            packets: 0,
            length: 0,
        }
    }

    /// Empties the file and writes the header.
    ///
    /// # Errors
    /// Where the file does not take it.
    pub fn begin(&mut self) -> io::Result<()> {
        self.file.begin()?;
        let header = PcapHeader {
            version_major: 2,
            version_minor: 4,
            ts_correction: 0,
            ts_accuracy: 0,
            snaplen: self.snaplen,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
        };
        let mut bytes = Vec::new();
        header.write_to(&mut bytes).map_err(plain)?;
        let (_, result) = write_all(self.file.file(), &bytes);
        if result.is_err() {
            self.file.cut(0);
        }
        self.length = bytes.len() as u64;
        result
    }

    /// Adds a packet that passed at `time` since the epoch.
    ///
    /// # Errors
    /// Where a block is full and the file does not take it.
    pub fn packet(&mut self, time: Duration, header: &RecordHeader, packet: &[u8]) -> io::Result<()> {
        let with_tag = header.vlan_proto != 0 && packet.len() >= TAG_AT;
        let data = if with_tag { put_back(&mut self.tagged, header, packet, self.snaplen) } else { packet };
        let record = RawPcapPacket {
            // Until 2106.
            ts_sec: u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
            ts_frac: time.subsec_nanos(),
            incl_len: length(data.len()),
            orig_len: header.wire_len + if with_tag { length(TAG) } else { 0 },
            data: Cow::Borrowed(data),
        };
        record.write_to::<_, LittleEndian>(&mut self.block).map_err(plain)?;
        if self.block.len() >= BLOCK { self.flush() } else { Ok(()) }
    }

    /// Packets in the file.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Writes out what was gathered. A file that does not take all of it is cut after the last whole record.
    ///
    /// # Errors
    /// What writing came to.
    pub fn flush(&mut self) -> io::Result<()> {
        let (written, result) = write_all(self.file.file(), &self.block);
        let (records, bytes) = whole_records(&self.block, written);
        self.packets += records;
        self.length += bytes as u64;
        self.block.clear();
        if result.is_err() {
            self.file.cut(self.length);
        }
        result
    }
}

/// The frame as it was on the wire, before the kernel took the tag out; at most `snaplen` bytes of it.
fn put_back<'a>(frame: &'a mut Vec<u8>, header: &RecordHeader, packet: &[u8], snaplen: u32) -> &'a [u8] {
    let (addresses, rest) = packet.split_at(TAG_AT);
    frame.clear();
    frame.extend_from_slice(addresses);
    frame.extend_from_slice(&header.vlan_proto.to_be_bytes());
    frame.extend_from_slice(&header.vlan_tci.to_be_bytes());
    frame.extend_from_slice(rest);
    frame.truncate(snaplen as usize);
    frame
}

/// Writes as much as the file takes: how much, and why not all.
fn write_all(mut file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(some) => written += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else who has the pipe does not want to wait for it; we do.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(file),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

fn wait_for_room(file: &File) {
    // What is wrong with it, the next write tells.
    let _ = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
}

/// How many whole records the first `written` bytes of a block hold, and their length in bytes.
fn whole_records(block: &[u8], written: usize) -> (u64, usize) {
    let (mut records, mut end) = (0, 0);
    while let Some(header) = block[end..written].first_chunk::<RECORD_HEADER>() {
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let next = end + RECORD_HEADER + length;
        if next > written {
            break;
        }
        (records, end) = (records + 1, next);
    }
    (records, end)
}

/// Lengths here are bounded by the snapshot length.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Into memory nothing is refused but a value, and these are in range.
fn plain(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use nsntrace_ebpf::RecordHeader;

    use super::*;
    use crate::config::Outfile;

    fn writer(folder: &tempfile::TempDir, snaplen: u32) -> PcapWriter {
        let path = folder.path().join("x.pcap");
        let mut writer =
            PcapWriter::new(TraceFile::open(&Outfile::Path(path), None).expect("opened"), snaplen);
        writer.begin().expect("begun");
        writer
    }

    fn written(folder: &tempfile::TempDir) -> Vec<u8> {
        std::fs::read(folder.path().join("x.pcap")).expect("there")
    }

    #[test]
    fn a_packet_stands_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = writer(&folder, 1000);
        let header = RecordHeader { wire_len: 60, cap_len: 20, ..RecordHeader::default() };
        writer.packet(Duration::new(5, 6), &header, &[7; 20]).expect("taken");
        assert_eq!(writer.packets(), 0);
        writer.flush().expect("written");
        assert_eq!(writer.packets(), 1);

        let bytes = written(&folder);
        let mut reader = pcap_file::pcap::PcapReader::new(&bytes[..]).expect("a pcap");
        assert_eq!(reader.header().ts_resolution, TsResolution::NanoSecond);
        let packet = reader.next_packet().expect("one").expect("whole");
        assert_eq!((packet.timestamp, packet.orig_len), (Duration::new(5, 6), 60));
        assert_eq!(packet.data[..], [7; 20]);
        assert!(reader.next_packet().is_none());
    }

    #[test]
    fn a_tag_is_put_back_within_the_snapshot_length() {
        let header = RecordHeader {
            wire_len: 16,
            cap_len: 16,
            vlan_proto: 0x8100,
            vlan_tci: 0x6005,
            ..RecordHeader::default()
        };
        let packet: Vec<u8> = (0..16).collect();
        let mut frame = Vec::new();
        let whole = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x81, 0, 0x60, 5, 12, 13, 14, 15];
        assert_eq!(put_back(&mut frame, &header, &packet, 100), whole);
        assert_eq!(put_back(&mut frame, &header, &packet, 17), &whole[..17]);
    }

    #[test]
    fn whole_records_are_counted() {
        let mut block = vec![0; 16 + 3 + 16 + 5];
        block[8] = 3;
        block[19 + 8] = 5;
        for (written, expected) in [(0, (0, 0)), (18, (0, 0)), (19, (1, 19)), (39, (1, 19)), (40, (2, 40))] {
            assert_eq!(whole_records(&block, written), expected, "{written}");
        }
    }
}
