//! The consumer's end of a BPF ring buffer, see Documentation/bpf/ringbuf.rst of Linux.
//!
//! Aya's own consumer gives each record back by itself. This one looks at many records where they lie and gives them
//! back together: one store to a cache line that the producers read, instead of one a packet.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use nix::sys::mman::ProtFlags;
use nsntrace_ebpf::PREFIX;

use super::mapping::Mapping;
use crate::{error::Result, page};

/// Set in a record's length until its producer has committed it.
pub(super) const BUSY: u32 = 1 << 31;

/// Set for a record that its producer has withdrawn.
const DISCARDED: u32 = 1 << 30;

/// Which part of the ring is read at a time, but no less than so many bytes: a small ring is read as a whole.
const PART: u64 = 8;
const LEAST: u64 = 1 << 20;

/// When the reader of a ring buffer of so many bytes is to come: when this many have come into it. Each call costs whoever sends
/// a wake-up and an interrupt: a bulk transfer on two virtual processors is some 4 % slower with a quarter of a megabyte, and 1 or
/// 2 % with half of one.
pub(super) fn much(size: u64) -> u64 {
    (size / 4).min(1 << 20)
}

/// A mapped ring buffer.
pub struct Ring {
    map: OwnedFd,
    consumer: Mapping,
    producer: Mapping,
    page: usize,
    /// Size of the data area in bytes, a power of two.
    size: usize,
}

/// A committed record.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Its position.
    pub position: u64,
    /// What the kernel side has put into it.
    pub data: &'a [u8],
}

impl Ring {
    /// Maps the ring buffer `map`, whose data area has `size` bytes.
    pub(super) fn map(map: OwnedFd, size: usize) -> Result<Self> {
        let page = page::size() as usize;
        // A page with the consumer's position, one with the producer's, and the data twice in a row, so that a record
        // that wraps round is in one piece.
        let consumer = Mapping::new(map.as_fd(), 0, page, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        let producer = Mapping::new(map.as_fd(), page, page + 2 * size, ProtFlags::PROT_READ)?;
        Ok(Self { map, consumer, producer, page, size })
    }

    /// The committed records that begin at `position`, oldest first, up to the first that is still being written.
    pub fn records(&self, position: u64) -> Records<'_> {
        Records { ring: self, position, end: self.end() }
    }

    /// A part of the ring, in bytes, such as is written at a time: the rest of the ring takes packets meanwhile.
    pub fn part(&self) -> u64 {
        let size = self.size as u64;
        (size / PART).max(LEAST.min(size))
    }

    /// Whether it may be full before the reader is called once more.
    pub fn is_nearly_full(&self) -> bool {
        let size = self.size as u64;
        self.end() - self.position() > size - 2 * much(size)
    }

    /// Where the consumer is.
    pub fn position(&self) -> u64 {
        // Only this side writes it.
        self.consumer_cell().load(Ordering::Relaxed)
    }

    /// Gives everything before `position` back to the producers.
    pub fn release(&mut self, position: u64) {
        // What was read of the records happens before their memory is used again, and the load of the producer's
        // position that follows must not be done before: a producer that saw the old position sends no wake-up.
        self.consumer_cell().store(position, Ordering::SeqCst);
    }

    /// Bytes of a committed record that is not released, from [`Ring::place`] on.
    pub fn bytes(&self, place: usize, length: usize) -> &[u8] {
        assert!(place + length <= 2 * self.size);
        // SAFETY: within the data area, which stands twice in memory so that no record is in two pieces. The kernel
        // writes no committed record, and to release it takes the ring for itself.
        unsafe { std::slice::from_raw_parts(self.data(place), length) }
    }

    /// Where a record's data is, as an offset for [`Ring::bytes`].
    pub fn place(&self, position: u64) -> usize {
        self.offset(position) + PREFIX
    }

    /// Whether there is no record that is not released.
    pub fn is_empty(&self) -> bool {
        self.position() == self.end()
    }

    fn consumer_cell(&self) -> &AtomicU64 {
        // SAFETY: the first eight bytes of the page, aligned, mapped as long as self.
        unsafe { AtomicU64::from_ptr(self.consumer.at(0).cast()) }
    }

    /// Where the producers are: behind the last record.
    pub fn end(&self) -> u64 {
        // SAFETY: as above, and only read.
        let cell = unsafe { AtomicU64::from_ptr(self.producer.at(0).cast()) };
        cell.load(Ordering::SeqCst)
    }

    /// Where in the data area a position is: positions only ever grow.
    #[expect(clippy::cast_possible_truncation, reason = "the lower bits are what counts")]
    fn offset(&self, position: u64) -> usize {
        position as usize & (self.size - 1)
    }

    /// A place in the data area, which is mapped twice. `offset` is below twice its size.
    fn data(&self, offset: usize) -> *const u8 {
        self.producer.at(self.page + offset)
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// See [`Ring::records`].
pub struct Records<'a> {
    ring: &'a Ring,
    position: u64,
    end: u64,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        while self.position < self.end {
            let position = self.position;
            let prefix = self.ring.data(self.ring.offset(position)).cast_mut();
            // SAFETY: records are eight bytes aligned, and the kernel has written a length before it moved the
            // producer's position beyond it.
            let length = unsafe { AtomicU32::from_ptr(prefix.cast()) }.load(Ordering::Acquire);
            if length & BUSY != 0 {
                return None;
            }
            let bytes = (length & !DISCARDED) as usize;
            self.position += (bytes + PREFIX).next_multiple_of(8) as u64;
            if length & DISCARDED == 0 {
                return Some(Record { position, data: self.ring.bytes(self.ring.place(position), bytes) });
            }
        }
        None
    }
}

impl Records<'_> {
    /// The position after what was looked at, records included that their producers have withdrawn.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The position of one that is still being written, if that is why no other follows.
    pub fn begun(&self) -> Option<u64> {
        (self.position < self.end).then_some(self.position)
    }
}

#[cfg(test)]
mod tests {
    use nsntrace_ebpf::passes;

    use super::*;

    #[test]
    fn reader_is_called_once_for_so_many_bytes() {
        for (size, base) in [(4096, 0), (64 << 10, 48), (1 << 20, 4096 + 1000), (32 << 20, 123_456)] {
            let much = much(size);
            let mut random = fastrand::Rng::with_seed(size);
            let (mut produced, mut called) = (0, 0);
            while produced < 10 * size {
                let length = 64 * random.u64(1..=much / 128);
                let place = base + produced % size;
                called += u64::from(passes(place, place + length, much));
                produced += length;
            }
            assert!(called.abs_diff(produced / much) <= 1, "{size}: {called} of {}", produced / much);
        }
    }
}
