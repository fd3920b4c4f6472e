//! What the kernel side tells of processes, taken from its ring buffer.

use std::{
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use super::ring::Ring;
use crate::ownership::news::News;

/// How often it is looked again for a record that is just being written. That takes a moment.
const LOOKS: usize = 1000;

/// Where the news come out.
pub struct Watch(Ring);

impl Watch {
    /// A watch on a ring buffer of events.
    pub(super) fn new(ring: Ring) -> Self {
        Self(ring)
    }

    /// Hands out what has happened by now, in order: all that comes before what was captured by now.
    pub fn news(&mut self, mut take: impl FnMut(News)) {
        for _ in 0..LOOKS {
            let mut records = self.0.records(self.0.position());
            records.by_ref().filter_map(|record| News::read(record.data)).for_each(&mut take);
            let reached = records.position();
            self.0.release(reached);
            if self.0.is_empty() {
                return;
            }
            thread::yield_now();
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
