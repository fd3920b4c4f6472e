//! What the kernel side and user space agree on: the layout of a record in the ring buffer, the counters, the
//! names of maps and programs, and the limits. Plain data, without a dependency.
#![no_std]

pub mod ownership;

/// Names under which user space finds the parts of the object.
pub mod names {
    /// The ring buffer of captured packets for those that find no room in [`NEAR`].
    pub const RING: &str = "RING";
    /// The ring buffer that packets go into first. It is so small that processors have it in their caches.
    pub const NEAR: &str = "NEAR";
    /// The array with a [`Processor`](crate::Processor) for each possible CPU, which user space maps.
    pub const PROCESSORS: &str = "PROCESSORS";
    /// The array with the [`Chunk`](crate::Chunk)s of all lanes, which user space maps: first those of CPU 0.
    pub const LANES: &str = "LANES";
    /// The TC program for packets that come in at the interface.
    pub const TC_INGRESS: &str = "tc_ingress";
    /// The TC program for packets that go out by the interface.
    pub const TC_EGRESS: &str = "tc_egress";
    /// The program for packets that come to a cgroup.
    pub const CGROUP_INGRESS: &str = "cgroup_ingress";
    /// The program for packets that a cgroup sends.
    pub const CGROUP_EGRESS: &str = "cgroup_egress";
    /// The `u32` global that is not 0 where parts of a lane are taken [`AHEAD`](crate::AHEAD).
    pub const TAKES_AHEAD: &str = "TAKES_AHEAD";
    /// The `u32` global that is not 0 where programs at an interface come in between each other on a CPU, too.
    pub const IS_REALTIME: &str = "IS_REALTIME";
    /// The `u64` global with the bytes, a power of two, which make a reader that does not sleep be woken when they have come into a
    /// ring buffer.
    pub const MUCH: &str = "MUCH";
}

/// The longest snapshot of a packet in bytes, tcpdump's default.
pub const MAX_SNAPLEN: u32 = 262_144;

/// Link-layer header types as pcap numbers them, see <https://www.tcpdump.org/linktypes.html>.
pub mod linktype {
    /// Ethernet.
    pub const EN10MB: u16 = 1;
    /// IPv4 or IPv6, without a link-layer header.
    pub const RAW: u16 = 101;
}

/// Which way a packet went, seen from the traced program. The numbers are those of pcapng's `epb_flags`.
pub mod direction {
    /// To the program.
    pub const INBOUND: u8 = 1;
    /// From the program.
    pub const OUTBOUND: u8 = 2;
}

/// Bytes that the kernel itself puts before each record of a ring buffer.
pub const PREFIX: usize = 8;

/// What stands before each packet in a ring buffer or a lane; `gap` bytes of nothing and `cap_len` of packet follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// When the packet passed, in nanoseconds of `CLOCK_BOOTTIME`.
    pub time: u64,
    /// Length of the packet in bytes, without a tag that stands in `vlan_tci`.
    pub wire_len: u32,
    /// How many of its bytes follow.
    pub cap_len: u32,
    /// Process that owns the packet; 0 where it is not known.
    pub owner: u32,
    /// Index of the interface, in the program's namespace.
    pub ifindex: u32,
    /// The VLAN tag that the kernel took out of the frame, in host order; counts only if `vlan_proto` is not 0.
    pub vlan_tci: u16,
    /// EtherType of that tag in host order, 0 for a frame without one.
    pub vlan_proto: u16,
    /// See [`linktype`].
    pub linktype: u16,
    /// See [`direction`].
    pub direction: u8,
    /// Bytes between the header and the packet.
    pub gap: u8,
}

impl RecordHeader {
    /// Bytes that the header takes there.
    pub const SIZE: usize = size_of::<Self>();

    /// Length of the packet on the wire in bytes, with a tag that stands in `vlan_tci`.
    pub const fn whole_len(&self) -> u32 {
        // A frame is never near 4 GiB.
        if self.is_tagged() { self.wire_len + 4 } else { self.wire_len }
    }

    /// Whether a tag stands in `vlan_tci`.
    pub const fn is_tagged(&self) -> bool {
        self.vlan_proto != 0 && self.linktype == linktype::EN10MB
    }

    /// Where the packet begins, in bytes from the header's beginning.
    pub const fn packet(&self) -> usize {
        Self::SIZE + self.gap as usize
    }
}

/// What is counted, in packets. The books balance: what passed the hook is `filtered` + `matched`, and `matched` =
/// `captured` + `dropped`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that the filter does not want.
    pub filtered: u64,
    /// Packets that are wanted.
    pub matched: u64,
    /// Packets that user space gets, by a ring buffer or by a lane.
    pub captured: u64,
    /// Packets lost because the ring buffers were full, or, which does not happen, because the kernel did not hand them out.
    pub dropped: u64,
    /// Captured packets of which the snapshot length kept only a part.
    pub cut: u64,
}

/// What a CPU has for itself, in one cache line: each that a packet has to bring along costs nanoseconds. User space, which
/// writes the last of its words, comes by seldom.
#[repr(C, align(64))]
pub struct Processor {
    /// The CPU's books. It alone writes them; counters of a cgroup's packets are raised in one step.
    pub counters: Counters,
    /// Position in its lane behind the last record, which it alone writes; with [`BEGUN`], the next is being written.
    pub head: u64,
    /// Position up to which user space has taken the records.
    pub tail: u64,
    /// Bytes of its lane. 0 while user space waits for a ring buffer to wake it: no packet goes into a lane then. Where lanes
    /// are not used, a number that is too small for any.
    pub room: u32,
    /// Bytes to keep of a packet. 0 before the trace begins: packets that pass before are none of it, and are not counted.
    pub snaplen: u32,
}

const _: () = assert!(size_of::<Processor>() == 64);

/// Set in a lane's head from before a packet is stamped until its record is there. Positions leave it free.
pub const BEGUN: u64 = 1;

const _: () = assert!(BEGUN < ALIGN as u64);

/// A piece of a lane.
///
/// A lane is a ring of a CPU's own for small packets: nobody else writes there, so a packet needs no reservation, and
/// user space, which comes by from time to time, reads it where it lies. It has a power of two of chunks. When it is
/// full but for two parts of [`AHEAD`], packets go into a ring buffer.
///
/// Records, each a [`RecordHeader`] with its packet, lie at multiples of [`ALIGN`], and none in two chunks. Positions
/// are counted in bytes from the beginning of the trace; [`behind`] says where the next record is. The kernel side
/// marks `head`, writes a record, then raises `head`.
pub type Chunk = [u8; CHUNK];

/// Bytes of a chunk.
pub const CHUNK: usize = 64 << 10;

/// Records lie at multiples of so many bytes.
pub const ALIGN: usize = 8;

/// Bytes of a part of a chunk, which the kernel side takes before it needs it, if user space wants that: when a record reaches
/// into a part, each cache line of the next is written once, so that it has left the reader's cache by then. Else what comes
/// next on the packet's way would wait for it. The first two parts of a chunk are not taken so.
pub const AHEAD: usize = 1 << 10;

const _: () = assert!(AHEAD.is_power_of_two() && AHEAD >= LANE_RECORD && CHUNK.is_multiple_of(AHEAD));

/// Where the part begins that is to be taken when a record has been written from `at` to `end` of a chunk, if there is one.
#[inline(always)]
pub const fn ahead(at: usize, end: usize) -> Option<usize> {
    let part = (end & !(AHEAD - 1)) + AHEAD;
    if (at ^ end) & AHEAD == 0 || part > CHUNK - AHEAD { None } else { Some(part) }
}

/// Whether what reaches from one position to another passes a multiple of `step`, a power of two. Of records one behind the other
/// one does for each multiple.
#[inline(always)]
pub const fn passes(from: u64, to: u64, step: u64) -> bool {
    from ^ to >= step
}

/// Packets up to this length in bytes go into a lane.
pub const LANE_PACKET: u32 = 256;

/// The longest record of a lane in bytes.
pub const LANE_RECORD: usize = RecordHeader::SIZE + LANE_PACKET as usize;

/// The position of the record behind one of `length` bytes at `position`: none begins so late in a chunk that it might
/// not fit.
#[inline(always)]
pub const fn behind(position: u64, length: u64) -> u64 {
    const CHUNK: u64 = self::CHUNK as u64;
    let end = position + length.next_multiple_of(ALIGN as u64);
    if end % CHUNK > CHUNK - LANE_RECORD as u64 { end.next_multiple_of(CHUNK) } else { end }
}
