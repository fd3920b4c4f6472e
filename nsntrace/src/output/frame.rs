//! A packet as it was on the wire, in the pieces in which it lies in memory.

use nsntrace_ebpf::RecordHeader;

/// Where in an Ethernet frame a VLAN tag stands: after the two addresses.
const TAG_AT: usize = 12;

/// Bytes of a VLAN tag.
const TAG: usize = 4;

/// From how many bytes on it costs less to have the kernel fetch a packet than to copy it before.
const LARGE: usize = 16 << 10;

/// A packet, with the VLAN tag that the kernel took out back in its place. Copied once, into the trace.
pub(super) struct Frame<'a> {
    /// Whether it stays where it is, for who writes it from there.
    apart: bool,
    before: &'a [u8],
    tag: [u8; TAG],
    /// Bytes of the tag that count.
    tag_length: usize,
    after: &'a [u8],
    wire_length: u32,
}

impl<'a> Frame<'a> {
    /// The packet of a record, at most `snaplen` bytes of it. Where it may stay apart, is large and in one piece, it is to be
    /// written from where it is.
    #[inline]
    pub(super) fn new(header: &RecordHeader, packet: &'a [u8], snaplen: u32, may_stay: bool) -> Self {
        let wire_length = header.whole_len();
        if !header.is_tagged() || packet.len() < TAG_AT {
            return Self {
                apart: may_stay && packet.len() >= LARGE,
                before: packet,
                tag: [0; TAG],
                tag_length: 0,
                after: &[],
                wire_length,
            };
        }
        let (before, after) = packet.split_at(TAG_AT);
        let room = (snaplen as usize).saturating_sub(TAG_AT);
        let tag_length = TAG.min(room);
        let after = &after[..after.len().min(room - tag_length)];
        let tag = u32::from(header.vlan_proto) << 16 | u32::from(header.vlan_tci);
        Self { apart: false, before, tag: tag.to_be_bytes(), tag_length, after, wire_length }
    }

    /// All of it, if it is to be written from where it is.
    pub(super) fn apart(&self) -> Option<&'a [u8]> {
        self.apart.then_some(self.before)
    }

    /// Bytes that are kept of it.
    pub(super) fn length(&self) -> usize {
        self.before.len() + self.tag_length + self.after.len()
    }

    /// The same, as the formats have it; the snapshot length bounds it.
    pub(super) fn length_u32(&self) -> u32 {
        u32::try_from(self.length()).unwrap_or(u32::MAX)
    }

    /// Bytes that it had on the wire.
    pub(super) fn wire_length(&self) -> u32 {
        self.wire_length
    }

    /// Appends what is kept of it, unless that stays [apart](Self::apart). Returns its place.
    #[inline]
    pub(super) fn append_to(&self, out: &mut Vec<u8>) -> usize {
        let place = out.len();
        if self.apart {
            return place;
        }
        out.extend_from_slice(self.before);
        if self.tag_length > 0 {
            out.extend_from_slice(&self.tag[..self.tag_length]);
            out.extend_from_slice(self.after);
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use nsntrace_ebpf::linktype;

    use super::*;

    fn bytes(header: &RecordHeader, packet: &[u8], snaplen: u32) -> Vec<u8> {
        let frame = Frame::new(header, packet, snaplen, false);
        let mut out = Vec::new();
        frame.append_to(&mut out);
        assert_eq!(frame.length(), out.len());
        out
    }

    #[test]
    fn a_tag_is_put_back_within_the_snapshot_length() {
        let tagged = RecordHeader {
            wire_len: 16,
            cap_len: 16,
            vlan_proto: 0x8100,
            vlan_tci: 0x6005,
            linktype: linktype::EN10MB,
            ..RecordHeader::default()
        };
        let packet: Vec<u8> = (0..16).collect();
        let whole = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x81, 0, 0x60, 5, 12, 13, 14, 15];
        assert_eq!(bytes(&tagged, &packet, 100), whole);
        assert_eq!(Frame::new(&tagged, &packet, 100, true).wire_length(), 20);
        for snaplen in 12..20 {
            let kept = &packet[..16.min(snaplen)];
            let snaplen_u32 = u32::try_from(snaplen).expect("small");
            assert_eq!(bytes(&tagged, kept, snaplen_u32), whole[..snaplen], "{snaplen}");
        }
        assert_eq!(bytes(&tagged, &packet[..11], 11), whole[..11]);
        assert_eq!(Frame::new(&tagged, &packet[..11], 11, true).wire_length(), 20);
    }

    #[test]
    fn other_packets_stay_as_they_are() {
        let plain = RecordHeader { wire_len: 60, linktype: linktype::EN10MB, ..RecordHeader::default() };
        let raw = RecordHeader { vlan_proto: 0x8100, linktype: 101, ..plain };
        for header in [plain, raw] {
            assert_eq!(bytes(&header, &[7; 20], 20), [7; 20]);
            assert_eq!(Frame::new(&header, &[7; 20], 20, true).wire_length(), 60);
        }
    }
}
