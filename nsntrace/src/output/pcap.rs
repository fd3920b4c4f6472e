//! A nanosecond pcap.

use std::{borrow::Cow, time::Duration};

use byteorder_slice::LittleEndian;
use pcap_file::{
    DataLink, Endianness, TsResolution,
    pcap::{PcapHeader, RawPcapPacket},
};

use super::frame::Frame;

/// Bytes of a record before its packet.
const RECORD_HEADER: usize = 16;

/// Appends the header of a trace whose packets are at most `snaplen` bytes long.
pub(super) fn begin(out: &mut Vec<u8>, snaplen: u32, link_type: u16) {
    let header = PcapHeader {
        version_major: 2,
        version_minor: 4,
        ts_correction: 0,
        ts_accuracy: 0,
        snaplen,
        datalink: DataLink::from(u32::from(link_type)),
        ts_resolution: TsResolution::NanoSecond,
        endianness: Endianness::Little,
    };
    header.write_to(out).expect("memory takes it");
}

/// Appends a packet that passed at `time` since the epoch. Returns the place of its frame.
#[inline]
pub(super) fn packet(out: &mut Vec<u8>, time: Duration, frame: &Frame<'_>) -> usize {
    let record = RawPcapPacket {
        // Until 2106.
        ts_sec: u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
        ts_frac: time.subsec_nanos(),
        incl_len: frame.length_u32(),
        orig_len: frame.wire_length(),
        data: Cow::Borrowed(&[]),
    };
    // Through an array, since each of its fields would be a call for the vector.
    out.reserve(RECORD_HEADER + frame.length());
    let mut header = [0; RECORD_HEADER];
    record.write_to::<_, LittleEndian>(&mut &mut header[..]).expect("memory takes it");
    out.extend_from_slice(&header);
    frame.append_to(out)
}

/// How many whole packets these records hold, and their length in bytes.
pub(super) fn whole(records: &[u8]) -> (u64, usize) {
    let (mut packets, mut end) = (0, 0);
    while let Some(header) = records[end..].first_chunk::<RECORD_HEADER>() {
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let next = end + RECORD_HEADER + length;
        if next > records.len() {
            break;
        }
        (packets, end) = (packets + 1, next);
    }
    (packets, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_records_are_counted() {
        let mut records = [0; 16 + 3 + 16 + 5];
        records[8] = 3;
        records[19 + 8] = 5;
        for (written, expected) in [(0, (0, 0)), (18, (0, 0)), (19, (1, 19)), (39, (1, 19)), (40, (2, 40))] {
            assert_eq!(whole(&records[..written]), expected, "{written}");
        }
    }
}
