//! The reader's end of the lanes, see [`Chunk`].

use std::{os::fd::BorrowedFd, sync::Arc};

use nix::sys::mman::ProtFlags;
use nsntrace_ebpf::{Chunk, LANE_RECORD, RecordHeader, behind};

use super::{batch::header, mapping::Mapping, processors::Processors};
use crate::error::Result;

/// Chunks of a lane: half of them, with which the reader is called, are filled in 5 ms by a million packets a second.
const MOST_CHUNKS: usize = 16;

/// Bytes that all lanes take together, where there are not so many processors that a chunk for each takes more.
const MOST_BYTES: usize = 16 << 20;

/// Bytes of a cache line, and how far ahead they are fetched: by then they are there.
const LINE: u64 = 64;
const FETCHED: u64 = 3072;

/// How many chunks each of so many lanes has, a power of two.
pub(super) fn chunks(processors: usize) -> usize {
    let most = MOST_BYTES / size_of::<Chunk>() / processors.max(1);
    (1 << most.max(1).ilog2()).min(MOST_CHUNKS)
}

/// Whether the kernel side is to take the memory of a lane some packets before it needs it. It saves a packet some 20 ns of
/// waiting for the reader's processor to give it back, but where the processor by itself fetches what comes behind stores in
/// a row: Intel's lose some 10 ns by it.
pub(super) fn are_taken_ahead() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let vendor = std::arch::x86_64::__cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() != b"GenuineIntel"
    }
    #[cfg(not(target_arch = "x86_64"))]
    true
}

/// The lanes of all processors.
pub(super) struct Lanes {
    processors: Arc<Processors>,
    memory: Mapping,
    /// Bytes of each, and of all.
    size: usize,
    length: usize,
}

/// What is to be read of a lane.
#[derive(Debug)]
pub(super) struct Unread {
    cpu: usize,
    /// Of the first record.
    position: u64,
    /// Behind the last one.
    end: u64,
    /// What was stamped later is not read.
    up_to: u64,
    /// Up to where it was fetched.
    fetched: u64,
}

impl Lanes {
    /// Maps a map with the processors' chunks.
    pub(super) fn map(map: BorrowedFd<'_>, processors: Arc<Processors>) -> Result<Self> {
        let size = processors.lane();
        let length = processors.count() * size;
        let memory = Mapping::new(map, 0, length, ProtFlags::PROT_READ)?;
        Ok(Self { processors, memory, size, length })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.processors.count()
    }

    /// Position of the packet that a processor is just writing into its lane, if there is one.
    pub(super) fn begun(&self, cpu: usize) -> Option<u64> {
        self.processors.begun(cpu)
    }

    /// The records of a lane that are there by now and not released, as far as they were stamped up to `up_to`.
    pub(super) fn unread(&self, cpu: usize, up_to: u64) -> Unread {
        let position = self.processors.tail(cpu);
        let mut unread = Unread { cpu, position, end: self.processors.head(cpu), up_to, fetched: position };
        self.fetch_ahead(&mut unread);
        unread
    }

    /// The time of the first of them: they are in the order of time.
    pub(super) fn time(&self, unread: &Unread) -> Option<u64> {
        let time = (unread.position < unread.end).then(|| self.header(unread).time);
        time.filter(|time| *time <= unread.up_to)
    }

    /// That one.
    pub(super) fn first(&self, unread: &Unread) -> (&RecordHeader, &[u8]) {
        let header = self.header(unread);
        (header, self.bytes(unread, header.packet(), header.cap_len as usize))
    }

    /// Goes on behind it. Returns the time of the next.
    pub(super) fn pass(&self, unread: &mut Unread) -> Option<u64> {
        let length = RecordHeader::SIZE + self.header(unread).cap_len as usize;
        unread.position = behind(unread.position, length as u64);
        self.fetch_ahead(unread);
        self.time(unread)
    }

    /// Gives what was passed back to the processor. True if nothing stays that was there.
    pub(super) fn release(&mut self, unread: &Unread) -> bool {
        // Each of these words is in a line that the processor has in use.
        if self.processors.tail(unread.cpu) != unread.position {
            self.processors.set_tail(unread.cpu, unread.position);
        }
        unread.position == unread.end
    }

    /// Whether there is no record that is not released.
    pub(super) fn are_empty(&self) -> bool {
        (0..self.count()).all(|cpu| self.processors.head(cpu) == self.processors.tail(cpu))
    }

    /// Bytes of the first record.
    fn bytes(&self, unread: &Unread, at: usize, length: usize) -> &[u8] {
        let place = self.place(unread.cpu, unread.position) + at;
        assert!(unread.position < unread.end && length <= LANE_RECORD && place + length <= self.length);
        // SAFETY: within the lanes, and of a record that is there. The kernel side writes none again that is not released, and to
        // release it takes what hands this out for itself.
        unsafe { std::slice::from_raw_parts(self.memory.at(place), length) }
    }

    fn header(&self, unread: &Unread) -> &RecordHeader {
        header(self.bytes(unread, 0, RecordHeader::SIZE))
    }

    /// Has what comes next fetched, as far as it is there: the rest its processor has still to write.
    fn fetch_ahead(&self, unread: &mut Unread) {
        let ahead = unread.end.min(unread.position + FETCHED);
        while unread.fetched < ahead {
            fetch(self.memory.at(self.place(unread.cpu, unread.fetched)));
            unread.fetched += LINE;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower bits are what counts")]
    fn place(&self, cpu: usize, position: u64) -> usize {
        // The size is a power of two.
        cpu * self.size + (position as usize & (self.size - 1))
    }
}

/// Has a cache line fetched that is going to be read: another processor has written it.
fn fetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: nothing happens but that.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use nsntrace_ebpf::CHUNK;

    use super::*;

    #[test]
    fn lanes_take_no_more_than_their_share() {
        assert_eq!([1, 2, 16, 32, 33, 64, 65, 128, 240, 4096].map(chunks), [16, 16, 16, 8, 4, 4, 2, 2, 1, 1]);
    }

    #[test]
    fn no_record_is_in_two_chunks() {
        let (chunk, record) = (CHUNK as u64, LANE_RECORD as u64);
        assert_eq!(behind(0, 33), 40);
        assert_eq!(behind(chunk - 2 * record, record), chunk - record);
        assert_eq!(behind(chunk - record, record), chunk);
        assert_eq!(behind(chunk - record, 40), chunk);
        assert_eq!(behind(3 * chunk - record - 8, 40), 3 * chunk);
    }
}
