//! What is there to be written, in the order of time.
//!
//! Packets come by the ring buffer and by the lanes. Each processor stamps its packets in order; in the ring buffer one that
//! has a later place may have been stamped before, by another processor.

use std::ops::ControlFlow;

use nsntrace_ebpf::RecordHeader;

use super::{
    begun::Begun,
    lanes::{Lanes, Record},
    ring::Ring,
    waiting::{self, Entry, Source, Whereabouts},
};

/// A processor marks a place for a packet, stamps it, then lets it be seen; between any two others may be faster. So long after it
/// was made, in nanoseconds, others see the mark.
pub(super) const SETTLE: u64 = 100_000;

/// So long after it has its place, in nanoseconds, a packet is taken to be stamped.
const STAMPED: u64 = 1_000_000;

/// The number of the ring buffer among the sources; lanes follow.
const RING: usize = 0;

/// So many packets have room in a batch that is kept: a million in a second, where it is filled every 16 ms. Only who was long
/// held up finds more.
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
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: Vec<Entry>,
    /// Up to where the ring is taken.
    ring: u64,
    /// Up to where each lane is.
    lanes: Vec<u64>,
    /// What holds others back.
    begun: Begun,
    /// Up to where the ring was known at the last look that counts.
    known: u64,
}

impl Batch {
    /// Finds the oldest packets stamped up to `settled`, for some time past: all, or as many as may be written at a time.
    pub(super) fn fill(&mut self, ring: &Ring, lanes: &Lanes, settled: u64) -> Left {
        // There is no room to wait for anybody, or nobody to be waited for.
        let heeds = settled != u64::MAX && !ring.is_nearly_full();
        let begun = |cpu| if heeds { lanes.begun(cpu) } else { None };
        let held = (0..lanes.count()).map(|cpu| self.begun.up_to(RING + 1 + cpu, begun(cpu), 0));
        let up_to = held.fold(settled, u64::min);
        let end = ring.end();
        let (up_to, mut left) = self.take_from_ring(ring, up_to, heeds);
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
            self.known = end;
        }
        if !self.entries.is_sorted_by_key(|entry| entry.time) {
            self.entries.sort_by_key(|entry| entry.time);
        }
        left
    }

    /// Hands the packets out in the order of time, until one is not taken.
    pub(super) fn hand_out<E>(
        &self,
        ring: &Ring,
        lanes: &Lanes,
        mut take: impl FnMut(&RecordHeader, &[u8]) -> ControlFlow<E>,
    ) -> ControlFlow<E> {
        for entry in &self.entries {
            let bytes = |at: usize, length: usize| match entry.whereabouts.source() {
                Source::Lane(place) => lanes.bytes(place + at, length),
                Source::Ring(position) => ring.bytes(ring.place(position) + at, length),
            };
            let header = header(bytes(0, RecordHeader::SIZE));
            take(&header, bytes(header.packet(), header.cap_len as usize))?;
        }
        ControlFlow::Continue(())
    }

    /// Gives what was handed out back to the kernel side, and memory that is seldom needed to the system.
    pub(super) fn release(&mut self, ring: &mut Ring, lanes: &mut Lanes) {
        ring.release(self.ring);
        for (cpu, position) in self.lanes.iter().enumerate() {
            // Each of these words is in a line that its processor has in use.
            if lanes.tail(cpu) != *position {
                lanes.release(cpu, *position);
            }
        }
        self.entries.clear();
        self.entries.shrink_to(USUAL);
    }

    /// Up to which time packets from elsewhere may go with what is taken, and what stays.
    fn take_from_ring(&mut self, ring: &Ring, settled: u64, heeds: bool) -> (u64, Left) {
        let mut records = ring.records(ring.position());
        let (mut newest, mut up_to, mut ready, mut is_cut) = (0, settled, 0, true);
        self.ring = ring.position();
        // So that who is behind does not go through the same records again and again for a few.
        while is_cut && self.ring - ring.position() < ring.part() / 2 {
            let end = records.position() + ring.part();
            while records.position() < end
                && let Some(record) = records.next()
            {
                let time = header(record.data).time;
                newest = newest.max(time);
                self.entries.push(Entry { time, whereabouts: Whereabouts::in_ring(record.position) });
            }
            is_cut = records.position() >= end;
            // What is behind took its place later, and was stamped after that.
            let held = match is_cut {
                true => newest.saturating_sub(STAMPED),
                false => self.begun.up_to(RING, records.begun().filter(|_| heeds), self.known),
            };
            up_to = settled.min(held);
            ready = waiting::ready(&self.entries, up_to);
            self.ring = match self.entries.get(ready).map(|entry| entry.whereabouts.source()) {
                Some(Source::Ring(position)) => position,
                _ => records.position(),
            };
        }
        let waiting = &self.entries[ready..];
        let oldest_waiting = waiting.iter().map(|entry| entry.time).min();
        self.entries.truncate(ready);
        let left = match oldest_waiting {
            _ if is_cut => Left::More,
            Some(_) => Left::Young,
            None => Left::Nothing,
        };
        (oldest_waiting.map_or(up_to, |time| time.min(up_to)), left)
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

/// A record's header.
pub(super) fn header(bytes: &[u8]) -> RecordHeader {
    let bytes: &[u8; RecordHeader::SIZE] = bytes.first_chunk().expect("a record has a header");
    // SAFETY: as many bytes as it has, and any bytes are a header.
    unsafe { bytes.as_ptr().cast::<RecordHeader>().read_unaligned() }
}

#[cfg(test)]
mod tests;
