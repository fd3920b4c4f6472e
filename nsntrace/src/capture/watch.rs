//! What the kernel side tells of processes, taken from its ring buffer.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::{mapping::Mapping, ring::Ring};
use crate::ownership::news::News;

/// How often it is looked again for a record that is just being written. That takes a moment.
const LOOKS: usize = 1000;

/// Where the news come out.
pub struct Watch {
    ring: Ring,
    /// The number of events that found no room in it.
    missed: Mapping,
    /// What was there before.
    earlier: Vec<News>,
}

impl Watch {
    /// A watch on a ring buffer of events, and on the map with the number of those that found no room in it.
    pub(super) fn new(ring: Ring, missed: Mapping) -> Self {
        Self { ring, missed, earlier: Vec::new() }
    }

    /// Hands out these first.
    pub(super) fn begin_with(&mut self, earlier: Vec<News>) {
        self.earlier = earlier;
    }

    /// How many events were lost because they were not taken in time.
    pub fn missed(&self) -> u64 {
        // SAFETY: a u64, aligned, mapped as long as self; the kernel side raises it in one step.
        unsafe { AtomicU64::from_ptr(self.missed.at(0).cast()) }.load(Ordering::Relaxed)
    }

    /// Hands out what has happened by now, in order: all that comes before what was captured by now.
    pub fn news(&mut self, mut take: impl FnMut(News)) {
        self.earlier.drain(..).for_each(&mut take);
        for _ in 0..LOOKS {
            let mut records = self.ring.records(self.ring.position());
            records.by_ref().filter_map(|record| News::read(record.data)).for_each(&mut take);
            let reached = records.position();
            self.ring.release(reached);
            if self.ring.is_empty() {
                return;
            }
            thread::yield_now();
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
