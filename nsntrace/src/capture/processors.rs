//! What each processor has for itself: its books, and its place in its lane.

use std::{
    mem::offset_of,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use nix::sys::mman::ProtFlags;
use nsntrace_ebpf::{BEGUN, Counters, Processor};

use super::{mapping::Mapping, realtime};
use crate::error::Result;

/// Whether stores are seen by others in the order in which they are made.
const IN_ORDER: bool = cfg!(any(target_arch = "x86", target_arch = "x86_64", target_arch = "s390x"));

/// Whether the kernel side may use lanes. They count on that, and on programs that do not come in between each other on a processor.
fn are_lanes_used() -> bool {
    IN_ORDER && !realtime::is_here()
}

/// The processors' memory.
pub(super) struct Processors {
    memory: Mapping,
    count: usize,
    /// Bytes of a lane.
    lane: u32,
    /// The same where lanes are used, else too few for any packet.
    room: u32,
    /// Bytes to keep of a packet.
    snaplen: u32,
}

impl Processors {
    /// Maps a map with `count` elements, for lanes of so many bytes each. The mapping keeps the map.
    pub(super) fn map(map: BorrowedFd<'_>, count: usize, lane: u32, snaplen: u32) -> Result<Self> {
        let length = count * size_of::<Processor>();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let memory = Mapping::new(map, 0, length, protection)?;
        let room = if are_lanes_used() { lane } else { 1 };
        let processors = Self { memory, count, lane, room, snaplen };
        processors.set_asleep(true);
        Ok(processors)
    }

    /// Packets that pass from here on are of the trace.
    pub(super) fn begin(&self) {
        self.set_all(offset_of!(Processor, snaplen), self.snaplen);
    }

    /// Packets that pass from here on are none of it any more.
    pub(super) fn end(&self) {
        self.set_all(offset_of!(Processor, snaplen), 0);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of a lane.
    pub(super) fn lane(&self) -> usize {
        self.lane as usize
    }

    /// Says whether the reader waits for a ring buffer to wake it. Packets that pass from then on go into no lane; one
    /// that passes just now may.
    pub(super) fn set_asleep(&self, asleep: bool) {
        self.set_all(offset_of!(Processor, room), if asleep { 0 } else { self.room });
    }

    /// Position behind the last record of the processor's lane.
    pub(super) fn head(&self, cpu: usize) -> u64 {
        self.head_cell(cpu).load(Ordering::Acquire) & !BEGUN
    }

    /// Position of the packet that the processor is just writing into its lane, if there is one.
    pub(super) fn begun(&self, cpu: usize) -> Option<u64> {
        let head = self.head_cell(cpu).load(Ordering::Acquire);
        (head & BEGUN != 0).then_some(head & !BEGUN)
    }

    /// Position up to which the lane is taken.
    pub(super) fn tail(&self, cpu: usize) -> u64 {
        // Only this side writes it.
        self.cell(cpu, offset_of!(Processor, tail)).load(Ordering::Relaxed)
    }

    /// Gives everything in the lane before `tail` back to the processor.
    pub(super) fn set_tail(&self, cpu: usize, tail: u64) {
        self.cell(cpu, offset_of!(Processor, tail)).store(tail, Ordering::Release);
    }

    /// The books of all processors, added up.
    pub(super) fn counters(&self) -> Counters {
        let sum = |field: usize| {
            (0..self.count)
                .map(|cpu| self.cell(cpu, offset_of!(Processor, counters) + field).load(Ordering::Relaxed))
                .sum()
        };
        Counters {
            filtered: sum(offset_of!(Counters, filtered)),
            matched: sum(offset_of!(Counters, matched)),
            captured: sum(offset_of!(Counters, captured)),
            dropped: sum(offset_of!(Counters, dropped)),
            cut: sum(offset_of!(Counters, cut)),
        }
    }

    fn set_all(&self, offset: usize, value: u32) {
        for cpu in 0..self.count {
            // SAFETY: a u32 of the element, aligned, mapped as long as self; both sides use whole words.
            unsafe { AtomicU32::from_ptr(self.place(cpu, offset).cast()) }.store(value, Ordering::SeqCst);
        }
    }

    fn head_cell(&self, cpu: usize) -> &AtomicU64 {
        self.cell(cpu, offset_of!(Processor, head))
    }

    fn cell(&self, cpu: usize, offset: usize) -> &AtomicU64 {
        // SAFETY: a u64, and as above.
        unsafe { AtomicU64::from_ptr(self.place(cpu, offset).cast()) }
    }

    fn place(&self, cpu: usize, offset: usize) -> *mut u8 {
        self.memory.at(cpu * size_of::<Processor>() + offset)
    }
}

#[cfg(test)]
impl Processors {
    /// For who plays the kernel's part.
    pub(super) fn set_head(&self, cpu: usize, head: u64) {
        self.head_cell(cpu).store(head, Ordering::Release);
    }
}
