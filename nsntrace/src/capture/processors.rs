//! What each processor has for itself: its books, and the stage on which small packets gather.

use std::{
    mem::offset_of,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use nix::sys::mman::ProtFlags;
use nsntrace_ebpf::{Counters, Processor, STAGE_BYTES, Stage};

use super::mapping::Mapping;
use crate::error::Result;

/// Whether the kernel side may use stages: they count on stores that others see in the order in which they are made.
const STAGES: bool = cfg!(any(target_arch = "x86", target_arch = "x86_64", target_arch = "s390x"));

/// The processors' memory.
pub(super) struct Processors {
    memory: Mapping,
    count: usize,
}

/// How far the records of a stage are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Which filling of the stage.
    pub(super) generation: u64,
    /// Bytes of it.
    pub(super) used: usize,
}

impl Processors {
    /// Maps a map with `count` elements. The mapping keeps the map.
    pub(super) fn map(map: BorrowedFd<'_>, count: usize) -> Result<Self> {
        let length = count * size_of::<Processor>();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let processors = Self { memory: Mapping::new(map, 0, length, protection)?, count };
        processors.set_asleep(true);
        Ok(processors)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Says whether the reader waits for the ring buffer to wake it. Packets that pass from then on do not stop at a
    /// stage; one that passes just now may.
    pub(super) fn set_asleep(&self, asleep: bool) {
        for cpu in 0..self.count {
            let value = u64::from(asleep || !STAGES);
            self.cell(cpu, offset_of!(Processor, asleep)).store(value, Ordering::SeqCst);
        }
    }

    /// Whether a stage holds something that is not taken.
    pub(super) fn have_news(&self, taken: &[Taken]) -> bool {
        taken.iter().enumerate().any(|(cpu, taken)| {
            let now = self.filling(cpu);
            now.used > if now.generation == taken.generation { taken.used } else { 0 }
        })
    }

    /// Copies the records that are on a stage and not taken to the end of `copy`. Returns from where to where in the
    /// stage they are; none if there are none, or if they have gone to the ring buffer meanwhile.
    pub(super) fn look(&self, cpu: usize, taken: Taken, copy: &mut Vec<u8>) -> Option<(Taken, usize)> {
        let now = self.filling(cpu);
        let start = if now.generation == taken.generation { taken.used } else { 0 };
        if now.used <= start || now.used > STAGE_BYTES {
            return None;
        }
        let length = copy.len();
        let records = offset_of!(Processor, stage) + offset_of!(Stage, records);
        let from = self.place(cpu, records + start);
        // SAFETY: within the stage. The kernel side may begin to overwrite it: then the generation changes, and what
        // was copied is thrown away.
        unsafe {
            copy.reserve(now.used - start);
            std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr().add(length), now.used - start);
            copy.set_len(length + now.used - start);
        }
        fence(Ordering::Acquire);
        if self.filling(cpu).generation != now.generation {
            copy.truncate(length);
            return None;
        }
        Some((Taken { used: start, ..now }, now.used))
    }

    /// The books of all processors, added up.
    pub(super) fn counters(&self) -> Counters {
        let sum = |field: usize| {
            let offset = offset_of!(Processor, counters) + field;
            (0..self.count).map(|cpu| self.cell(cpu, offset).load(Ordering::Relaxed)).sum()
        };
        Counters {
            filtered: sum(offset_of!(Counters, filtered)),
            matched: sum(offset_of!(Counters, matched)),
            captured: sum(offset_of!(Counters, captured)),
            dropped: sum(offset_of!(Counters, dropped)),
            cut: sum(offset_of!(Counters, cut)),
        }
    }

    /// The generation is read first: used is 0 before it is raised.
    fn filling(&self, cpu: usize) -> Taken {
        let field =
            |field: usize| self.cell(cpu, offset_of!(Processor, stage) + field).load(Ordering::Acquire);
        let generation = field(offset_of!(Stage, generation));
        let used = usize::try_from(field(offset_of!(Stage, used))).unwrap_or(usize::MAX);
        Taken { generation, used }
    }

    fn cell(&self, cpu: usize, offset: usize) -> &AtomicU64 {
        // SAFETY: a u64 of the element, aligned, mapped as long as self; both sides use whole words.
        unsafe { AtomicU64::from_ptr(self.place(cpu, offset).cast()) }
    }

    fn place(&self, cpu: usize, offset: usize) -> *mut u8 {
        self.memory.at(cpu * size_of::<Processor>() + offset)
    }
}

#[cfg(test)]
impl Processors {
    /// A processor's stage, for who plays the kernel's part.
    pub(super) fn stage(&self, cpu: usize) -> *mut Stage {
        self.place(cpu, offset_of!(Processor, stage)).cast()
    }
}
