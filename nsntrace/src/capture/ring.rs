//! The consumer's end of a BPF ring buffer, see Documentation/bpf/ringbuf.rst of Linux.
//!
//! Aya's own consumer gives each record back by itself. This one looks at many records where they lie and gives them
//! back together: one store to a cache line that the producers read, instead of one a packet.

use std::{
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aya::maps::MapData;
use nix::{
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
    unistd::{SysconfVar, sysconf},
};
use nsntrace_ebpf::RecordHeader;

use crate::error::{Context, Result};

/// Set in a record's length until its producer has committed it.
const BUSY: u32 = 1 << 31;

/// Set for a record that its producer has withdrawn.
const DISCARDED: u32 = 1 << 30;

/// Bytes of a record that the kernel puts before its data.
const PREFIX: usize = 8;

/// A mapped ring buffer.
pub struct Ring {
    map: MapData,
    consumer: Mapping,
    producer: Mapping,
    page: usize,
    /// Size of the data area in bytes, a power of two.
    size: usize,
}

/// A committed record.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its header.
    pub header: RecordHeader,
    /// Where the packet begins, as an offset of the data area.
    packet: usize,
    /// The position after it.
    pub end: u64,
}

impl Record {
    /// A committed record whose packet begins at offset `packet` of the data area, and that ends before position `end`.
    pub fn at(header: RecordHeader, packet: usize, end: u64) -> Self {
        Self { header, packet, end }
    }
}

/// Memory that is unmapped when it goes out of scope.
struct Mapping {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: the memory belongs to no thread; what producers change in it is read by atomic loads.
unsafe impl Send for Mapping {}

impl Ring {
    /// Maps the ring buffer behind a map whose data area has `size` bytes.
    pub(super) fn map(map: MapData, size: u32) -> Result<Self> {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|page| usize::try_from(page).ok());
        let page = page.unwrap_or(4096);
        let fd = map.fd().as_fd();
        let size = size as usize;
        // A page with the consumer's position, one with the producer's, and the data twice in a row, so that a record
        // that wraps round is in one piece.
        let consumer = Mapping::new(fd, 0, page, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        let producer = Mapping::new(fd, page, page + 2 * size, ProtFlags::PROT_READ)?;
        Ok(Self { map, consumer, producer, page, size })
    }

    /// The committed records that begin at `position`, oldest first, up to the first that is still being written.
    pub fn records(&self, position: u64) -> Records<'_> {
        Records { ring: self, position, end: self.producer_position() }
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

    /// The bytes of the record's packet.
    pub fn packet(&self, record: &Record) -> &[u8] {
        // SAFETY: `records` has checked that header and packet lie within the record, and `release` needs the ring
        // for itself, so the kernel does not write here while the slice lives.
        unsafe {
            let start = self.data(record.packet);
            std::slice::from_raw_parts(start, record.header.cap_len as usize)
        }
    }

    fn consumer_cell(&self) -> &AtomicU64 {
        // SAFETY: the first eight bytes of the page, aligned, mapped as long as self.
        unsafe { self.consumer.start.cast().as_ref() }
    }

    fn producer_position(&self) -> u64 {
        // SAFETY: as above.
        let cell: &AtomicU64 = unsafe { self.producer.start.cast().as_ref() };
        cell.load(Ordering::SeqCst)
    }

    /// Where in the data area a position is: positions only ever grow.
    #[expect(clippy::cast_possible_truncation, reason = "the lower bits are what counts")]
    fn offset(&self, position: u64) -> usize {
        position as usize & (self.size - 1)
    }

    /// A place in the data area. `offset` is below twice its size.
    fn data(&self, offset: usize) -> *const u8 {
        // SAFETY: within the mapping of one page and twice the size.
        unsafe { self.producer.start.as_ptr().add(self.page + offset) }
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.map.fd().as_fd().as_raw_fd()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

/// See [`Ring::records`].
pub struct Records<'a> {
    ring: &'a Ring,
    position: u64,
    end: u64,
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        while self.position < self.end {
            let offset = self.ring.offset(self.position);
            // SAFETY: records are eight bytes aligned, and the kernel has written a length before it moved the
            // producer's position beyond it.
            let length = unsafe { (*self.ring.data(offset).cast::<AtomicU32>()).load(Ordering::Acquire) };
            if length & BUSY != 0 {
                return None;
            }
            let bytes = length & !DISCARDED;
            self.position += (u64::from(bytes) + PREFIX as u64).next_multiple_of(8);
            if length & DISCARDED == 0 {
                return Some(self.record(offset + PREFIX, bytes as usize));
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

    fn record(&self, offset: usize, bytes: usize) -> Record {
        assert!(bytes >= RecordHeader::SIZE, "a record of {bytes} bytes");
        // SAFETY: the record is committed, aligned to eight bytes, and long enough for the header.
        let header = unsafe { self.ring.data(offset).cast::<RecordHeader>().read() };
        assert!(header.cap_len as usize <= bytes - RecordHeader::SIZE, "a packet larger than its record");
        Record::at(header, offset + RecordHeader::SIZE, self.position)
    }
}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, offset: usize, length: usize, protection: ProtFlags) -> Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(nix::Error::EINVAL).context("map", "the ring buffer")?;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let start =
            unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd, offset as libc::off_t) };
        Ok(Self { start: start.context("map", "the ring buffer")?.cast(), length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by new, and nothing refers to it any more.
        let _ = unsafe { munmap(self.start.cast(), self.length.get()) };
    }
}
