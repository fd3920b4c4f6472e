//! What the kernel side and user space agree on: the layout of a record in the ring buffer, the counters, the
//! names of maps and programs, and the limits. Plain data, without a dependency.
#![no_std]

pub mod ownership;

/// Names under which user space finds the parts of the object.
pub mod names {
    /// The ring buffer of captured packets.
    pub const RING: &str = "RING";
    /// The array with a [`Processor`](crate::Processor) for each possible CPU, which user space maps.
    pub const PROCESSORS: &str = "PROCESSORS";
    /// The `u32` global with the snapshot length in bytes.
    pub const SNAPLEN: &str = "SNAPLEN";
    /// The TC program for packets that come in at the interface.
    pub const TC_INGRESS: &str = "tc_ingress";
    /// The TC program for packets that go out by the interface.
    pub const TC_EGRESS: &str = "tc_egress";
    /// The program for packets that come to a cgroup.
    pub const CGROUP_INGRESS: &str = "cgroup_ingress";
    /// The program for packets that a cgroup sends.
    pub const CGROUP_EGRESS: &str = "cgroup_egress";
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

/// What stands before each packet in the ring buffer; `cap_len` bytes of packet follow.
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
    /// Zero.
    pub reserved: u8,
}

impl RecordHeader {
    /// Bytes that the header takes in the ring buffer.
    pub const SIZE: usize = size_of::<Self>();
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
    /// Packets that user space gets, by the ring buffer or by the stage.
    pub captured: u64,
    /// Packets lost because the ring buffer was full.
    pub dropped: u64,
    /// Captured packets of which the snapshot length kept only a part.
    pub cut: u64,
}

/// What a CPU has for itself: it alone writes here, but for `asleep`, and but for counters of a cgroup's packets, which
/// are raised in one step.
#[repr(C)]
pub struct Processor {
    /// The CPU's books.
    pub counters: Counters,
    /// Not 0 while user space waits for the ring buffer to wake it: packets are not staged then.
    pub asleep: u64,
    /// Small packets on their way to the ring buffer.
    pub stage: Stage,
}

/// Small packets are gathered and go through the ring buffer together, since each passage has its price.
///
/// User space reads a stage where it lies too, so a packet waits for no other. The kernel side appends a record, then
/// raises `used`; it puts the whole stage into the ring buffer, then sets `used` to 0, then raises `generation`. So
/// whoever finds the same generation before and after a look has seen whole records, and knows which of them will come
/// by the ring buffer as well. What stands in the ring buffer is the same structure up to `used`.
#[repr(C)]
pub struct Stage {
    /// 0, where a record has its time: by that the two are told apart in the ring buffer.
    pub zero: u64,
    /// How often the stage went through the ring buffer.
    pub generation: u64,
    /// Bytes of `records` in use.
    pub used: u64,
    /// The CPU's number.
    pub cpu: u64,
    /// Records, each a [`RecordHeader`] with its packet, padded to [`ALIGN`].
    pub records: [u8; STAGE_BYTES],
}

impl Stage {
    /// Bytes before the records.
    pub const HEADER: usize = size_of::<Self>() - STAGE_BYTES;
}

/// Records lie at multiples of so many bytes.
pub const ALIGN: usize = 8;

/// Packets up to this length in bytes are staged. Longer ones cost more to copy twice than they save.
pub const STAGED_PACKET: u32 = 256;

/// Room for records in a stage, such that a [`Processor`] takes two pages of 4 KiB.
pub const STAGE_BYTES: usize = 8192 - size_of::<Counters>() - 5 * size_of::<u64>();

const _: () = assert!(size_of::<Processor>() == 8192);
