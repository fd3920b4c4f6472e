//! The kernel side's books.

/// What the kernel side has counted, in packets: `seen` = `captured` + `dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets that passed.
    pub seen: u64,
    /// Packets on their way to the file.
    pub captured: u64,
    /// Packets lost because the ring buffer was full.
    pub dropped: u64,
    /// Captured packets of which the snapshot length kept only a part.
    pub cut: u64,
}
