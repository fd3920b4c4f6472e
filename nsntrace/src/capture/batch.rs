//! What is there to be written, in the order of time.
//!
//! Packets come by the ring buffers and by the lanes. Each processor stamps its packets in order; in a ring buffer one that
//! has a later place may have been stamped before, by another processor.

use std::{array, ops::ControlFlow};

use nsntrace_ebpf::RecordHeader;

use super::{
    begun::Begun,
    lanes::{Lanes, Record},
    ring::Ring,
    rings::{self, Rings},
    waiting::{self, Entry, Source, Whereabouts},
};

/// A processor marks a place for a packet, stamps it, then lets it be seen; between any two others may be faster. So long after it
/// was made, in nanoseconds, others see the mark.
pub(super) const SETTLE: u64 = 100_000;

/// So long after it has its place, in nanoseconds, a packet is taken to be stamped.
const STAMPED: u64 = 1_000_000;

/// So many packets have room in a batch that is kept: more than half a lane, with which the reader is called. Only who was held
/// up, or has many busy processors, finds more.
const USUAL: usize = 16384;

/// What stays behind a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing that was there.
    Nothing,
    /// What is too young.
    Young,
    /// What has no room in this batch.
    More,
}

/// Packets to be written, and how far each source is taken then. Empty once they are released, and its memory is used again
/// for the next batch.
#[derive(Debug)]
pub(super) struct Batch {
    entries: Vec<Entry>,
    /// What is in each ring, and up to where that is taken.
    found: [Found; rings::COUNT],
    /// Up to where each lane is taken.
    lanes: Vec<u64>,
    /// What holds others back: first of the rings, then of the lanes.
    begun: Begun,
}

/// What is in a ring.
#[derive(Debug, Default)]
struct Found {
    /// The packets that were looked at, in the order of their places.
    entries: Vec<Entry>,
    /// The latest of their times.
    newest: u64,
    /// The position behind them.
    end: u64,
    /// Whether there may be more.
    is_cut: bool,
    /// The position of one that is still being written, which hides what is behind it.
    begun: Option<u64>,
    /// How many at the front are ready.
    ready: usize,
    /// Up to where the ring was known at the last look that counts.
    known: u64,
}

impl Batch {
    /// An empty one, whose memory is there from the beginning: it does not come as the packets do.
    pub(super) fn new() -> Self {
        let mut entries = vec![Entry { time: 0, whereabouts: Whereabouts::in_lane(0) }; USUAL];
        entries.clear();
        Self { entries, found: Default::default(), lanes: Vec::new(), begun: Begun::default() }
    }

    /// Finds the oldest packets stamped up to `settled`, for some time past: all, or as many as may be written at a time.
    pub(super) fn fill(&mut self, rings: &Rings, lanes: &Lanes, settled: u64) -> Left {
        // More would be lost than order is worth, or there is nobody to be waited for.
        let heeds = settled != u64::MAX && !rings.are_nearly_full();
        let begun = |cpu| if heeds { lanes.begun(cpu) } else { None };
        let held = (0..lanes.count()).map(|cpu| self.begun.up_to(rings::COUNT + cpu, begun(cpu), 0));
        let up_to = held.fold(settled, u64::min);
        let ends = rings.each().each_ref().map(Ring::end);
        let (up_to, mut left) = self.take_from_rings(rings, up_to, heeds);
        self.lanes.clear();
        let mut all = !self.begun.is_any();
        for cpu in 0..lanes.count() {
            all &= self.take_from_lane(lanes, cpu, up_to);
        }
        if left == Left::Nothing && !all {
            left = Left::Young;
        }
        if heeds && left != Left::More {
            self.begun.looked(settled);
            self.found.iter_mut().zip(ends).for_each(|(found, end)| found.known = end);
        }
        if !self.entries.is_sorted_by_key(|entry| entry.time) {
            self.entries.sort_by_key(|entry| entry.time);
        }
        left
    }

    /// Hands the packets out in the order of time, until one is not taken.
    pub(super) fn hand_out<E>(
        &self,
        rings: &Rings,
        lanes: &Lanes,
        mut take: impl FnMut(&RecordHeader, &[u8]) -> ControlFlow<E>,
    ) -> ControlFlow<E> {
        for entry in &self.entries {
            let bytes = |at: usize, length: usize| match entry.whereabouts.source() {
                Source::Lane(place) => lanes.bytes(place + at, length),
                Source::Ring(number, position) => {
                    let ring = &rings.each()[number];
                    ring.bytes(ring.place(position) + at, length)
                }
            };
            let header = header(bytes(0, RecordHeader::SIZE));
            take(header, bytes(header.packet(), header.cap_len as usize))?;
        }
        ControlFlow::Continue(())
    }

    /// Gives what was handed out back to the kernel side, and memory that is seldom needed to the system.
    pub(super) fn release(&mut self, rings: &mut Rings, lanes: &mut Lanes) {
        rings.release(array::from_fn(|number| self.found[number].taken()));
        for (cpu, position) in self.lanes.iter().enumerate() {
            // Each of these words is in a line that its processor has in use.
            if lanes.tail(cpu) != *position {
                lanes.release(cpu, *position);
            }
        }
        for entries in self.found.iter_mut().map(|found| &mut found.entries).chain([&mut self.entries]) {
            entries.clear();
            entries.shrink_to(USUAL);
        }
    }

    /// Up to which time packets from elsewhere may go with what is taken, and what stays.
    fn take_from_rings(&mut self, rings: &Rings, settled: u64, heeds: bool) -> (u64, Left) {
        let Self { entries, found, begun, .. } = self;
        found.iter_mut().zip(rings.each()).for_each(|(found, ring)| found.begin(ring));
        let up_to = loop {
            let mut up_to = settled;
            for (number, (found, ring)) in found.iter_mut().zip(rings.each()).enumerate() {
                found.look_further(number, ring);
                up_to = up_to.min(match found.is_cut {
                    // What is behind took its place later, and was stamped after that.
                    true => found.newest.saturating_sub(STAMPED),
                    false => begun.up_to(number, found.begun.filter(|_| heeds), found.known),
                });
            }
            // What waits in one of them holds back what is younger in the other.
            while let Some(time) = found.iter_mut().filter_map(|found| found.wait(up_to)).min()
                && time < up_to
            {
                up_to = time;
            }
            // So that who is behind does not go through the same records again and again for a few, or for none.
            let is_enough =
                |(found, ring): (&Found, &Ring)| found.taken() - ring.position() >= ring.part() / 2;
            if !found.iter().any(|found| found.is_cut) || found.iter().zip(rings.each()).any(is_enough) {
                break up_to;
            }
        };
        found.iter().for_each(|found| entries.extend_from_slice(&found.entries[..found.ready]));
        let left = if found.iter().any(|found| found.is_cut) {
            Left::More
        } else if found.iter().any(|found| found.ready < found.entries.len()) {
            Left::Young
        } else {
            Left::Nothing
        };
        (up_to, left)
    }

    /// True if nothing is left waiting there.
    fn take_from_lane(&mut self, lanes: &Lanes, cpu: usize, up_to: u64) -> bool {
        let (mut taken, mut all) = (lanes.tail(cpu), true);
        for Record { time, place, end } in lanes.records(cpu) {
            if time > up_to {
                all = false;
                break;
            }
            self.entries.push(Entry { time, whereabouts: Whereabouts::in_lane(place) });
            taken = end;
        }
        self.lanes.push(taken);
        all
    }
}

impl Found {
    /// Nothing was looked at yet.
    fn begin(&mut self, ring: &Ring) {
        (self.newest, self.end, self.is_cut, self.begun) = (0, ring.position(), true, None);
    }

    /// Looks at a part more of the ring, if there may be more.
    fn look_further(&mut self, number: usize, ring: &Ring) {
        if !self.is_cut {
            return;
        }
        let mut records = ring.records(self.end);
        let end = self.end + ring.part();
        while records.position() < end
            && let Some(record) = records.next()
        {
            let time = header(record.data).time;
            self.newest = self.newest.max(time);
            self.entries.push(Entry { time, whereabouts: Whereabouts::in_ring(number, record.position) });
        }
        (self.end, self.begun) = (records.position(), records.begun());
        self.is_cut = self.end >= end;
    }

    /// Lets wait what was stamped later than that, or has its place behind what waits. Returns the time of the oldest of it.
    fn wait(&mut self, up_to: u64) -> Option<u64> {
        self.ready = waiting::ready(&self.entries, up_to);
        self.entries[self.ready..].iter().map(|entry| entry.time).min()
    }

    /// The position behind what is ready.
    fn taken(&self) -> u64 {
        match self.entries.get(self.ready).map(|entry| entry.whereabouts.source()) {
            Some(Source::Ring(_, position)) => position,
            _ => self.end,
        }
    }
}

/// A record's header, where it lies.
pub(super) fn header(bytes: &[u8]) -> &RecordHeader {
    let header = bytes.as_ptr().cast::<RecordHeader>();
    assert!(bytes.len() >= RecordHeader::SIZE && header.is_aligned());
    // SAFETY: as many bytes as it has, at a place for it, and any bytes are a header.
    unsafe { &*header }
}

#[cfg(test)]
mod tests;
