//! What is there to be written, in the order of time.
//!
//! Packets come by the ring buffers and by the lanes. Each processor stamps its packets in order; in a ring buffer one that
//! has a later place may have been stamped before, by another processor.

use std::{
    array,
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    ops::ControlFlow,
};

use nsntrace_ebpf::RecordHeader;

use super::{
    begun::Begun,
    lanes::{Lanes, Unread},
    ring::Ring,
    rings::{self, Rings},
    waiting::{self, Entry},
};

/// A processor marks a place for a packet, stamps it, then lets it be seen; between any two others may be faster. So long after it
/// was made, in nanoseconds, others see the mark.
pub(super) const SETTLE: u64 = 100_000;

/// So long after it has its place, in nanoseconds, a packet is taken to be stamped.
const STAMPED: u64 = 1_000_000;

/// So many packets of a ring have room in a batch that is kept: more than a part of the near one holds. Only where nothing goes into
/// lanes, or somebody was held up, the far one has more.
const USUAL: usize = 8192;

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

/// Packets to be written, and how far each source is taken. Its memory is used again for the next batch.
///
/// The sources are numbered: first the rings, then the lanes.
#[derive(Debug)]
pub(super) struct Batch {
    /// What is in each ring.
    found: [Found; rings::COUNT],
    /// What is in each lane.
    lanes: Vec<Unread>,
    /// Of each source that has one, the time of the packet that is to be handed out next.
    next: BinaryHeap<Reverse<(u64, usize)>>,
    /// What of the sources holds others back.
    begun: Begun,
}

/// What is in a ring.
#[derive(Debug)]
struct Found {
    /// The packets that were looked at, in the order of their places; those that are ready then in the order of time.
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
    /// How many of those were handed out.
    passed: usize,
    /// Up to where the ring was known at the last look that counts.
    known: u64,
}

impl Batch {
    /// An empty one, whose memory is there from the beginning: it does not come as the packets do.
    pub(super) fn new() -> Self {
        Self {
            found: array::from_fn(|_| Found::new()),
            lanes: Vec::new(),
            next: BinaryHeap::new(),
            begun: Begun::default(),
        }
    }

    /// Finds the oldest packets stamped up to `settled`, for some time past: all, or as many as may be written at a time. Those in
    /// lanes are looked at when their turn comes, but which they are is settled here.
    pub(super) fn fill(&mut self, rings: &Rings, lanes: &Lanes, settled: u64) {
        // More would be lost than order is worth, or there is nobody to be waited for.
        let heeds = settled != u64::MAX && !rings.are_nearly_full();
        let begun = |cpu| if heeds { lanes.begun(cpu) } else { None };
        let held = (0..lanes.count()).map(|cpu| self.begun.up_to(rings::COUNT + cpu, begun(cpu), 0));
        let up_to = held.fold(settled, u64::min);
        let ends = rings.each().each_ref().map(Ring::end);
        let up_to = self.take_from_rings(rings, up_to, heeds);
        self.lanes.clear();
        self.lanes.extend((0..lanes.count()).map(|cpu| lanes.unread(cpu, up_to)));
        if heeds && !self.is_cut() {
            self.begun.looked(settled);
            self.found.iter_mut().zip(ends).for_each(|(found, end)| found.known = end);
        }
    }

    /// Hands the packets out in the order of time, until one is not taken: then there is no further batch.
    pub(super) fn hand_out<E>(
        &mut self,
        rings: &Rings,
        lanes: &Lanes,
        mut take: impl FnMut(&RecordHeader, &[u8]) -> ControlFlow<E>,
    ) -> ControlFlow<E> {
        let Self { found, lanes: unread, next, .. } = self;
        let times = found.iter().map(Found::time).chain(unread.iter().map(|unread| lanes.time(unread)));
        next.clear();
        next.extend(times.zip(0..).filter_map(|(time, source)| Some(Reverse((time?, source)))));
        while let Some(mut first) = next.peek_mut() {
            let Reverse((time, source)) = &mut *first;
            let following = match source.checked_sub(rings::COUNT) {
                None => {
                    let (header, packet) = found[*source].first(&rings.each()[*source]);
                    take(header, packet)?;
                    found[*source].pass()
                }
                Some(cpu) => {
                    let (header, packet) = lanes.first(&unread[cpu]);
                    take(header, packet)?;
                    lanes.pass(&mut unread[cpu])
                }
            };
            match following {
                Some(following) => *time = following,
                None => drop(PeekMut::pop(first)),
            }
        }
        ControlFlow::Continue(())
    }

    /// Gives what was handed out back to the kernel side, and memory that is seldom needed to the system. Tells what stays.
    pub(super) fn release(&mut self, rings: &mut Rings, lanes: &mut Lanes) -> Left {
        let mut all = !self.begun.is_any() && self.found.iter().all(Found::is_ready);
        rings.release(array::from_fn(|number| self.found[number].taken()));
        self.found.iter_mut().for_each(Found::forget);
        for unread in &self.lanes {
            all &= lanes.release(unread);
        }
        match (self.is_cut(), all) {
            (true, _) => Left::More,
            (false, true) => Left::Nothing,
            (false, false) => Left::Young,
        }
    }

    /// Whether there may be more in a ring than was looked at.
    fn is_cut(&self) -> bool {
        self.found.iter().any(|found| found.is_cut)
    }

    /// Up to which time packets from elsewhere may go with what is taken.
    fn take_from_rings(&mut self, rings: &Rings, settled: u64, heeds: bool) -> u64 {
        let Self { found, begun, .. } = self;
        found.iter_mut().zip(rings.each()).for_each(|(found, ring)| found.begin(ring));
        let up_to = loop {
            let mut up_to = settled;
            for (number, (found, ring)) in found.iter_mut().zip(rings.each()).enumerate() {
                found.look_further(ring);
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
        found.iter_mut().for_each(Found::sort);
        up_to
    }
}

impl Found {
    fn new() -> Self {
        // Zeros would be pages that nobody has touched.
        let mut entries = vec![Entry { time: u64::MAX, position: u64::MAX }; USUAL];
        entries.clear();
        Self { entries, newest: 0, end: 0, is_cut: true, begun: None, ready: 0, passed: 0, known: 0 }
    }

    /// Nothing was looked at yet.
    fn begin(&mut self, ring: &Ring) {
        (self.newest, self.end, self.is_cut, self.begun) = (0, ring.position(), true, None);
    }

    /// Nothing of it is wanted any more.
    fn forget(&mut self) {
        (self.ready, self.passed) = (0, 0);
        self.entries.clear();
        self.entries.shrink_to(USUAL);
    }

    /// Looks at a part more of the ring, if there may be more.
    fn look_further(&mut self, ring: &Ring) {
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
            self.entries.push(Entry { time, position: record.position });
        }
        (self.end, self.begun) = (records.position(), records.begun());
        self.is_cut = self.end >= end;
    }

    /// Lets wait what was stamped later than that, or has its place behind what waits. Returns the time of the oldest of it.
    fn wait(&mut self, up_to: u64) -> Option<u64> {
        self.ready = waiting::ready(&self.entries, up_to);
        self.entries[self.ready..].iter().map(|entry| entry.time).min()
    }

    /// Whether nothing waits.
    fn is_ready(&self) -> bool {
        self.ready == self.entries.len()
    }

    /// The position behind what is ready.
    fn taken(&self) -> u64 {
        self.entries.get(self.ready).map_or(self.end, |entry| entry.position)
    }

    /// Puts what is ready into the order of time.
    fn sort(&mut self) {
        let ready = &mut self.entries[..self.ready];
        if !ready.is_sorted_by_key(|entry| entry.time) {
            ready.sort_by_key(|entry| entry.time);
        }
    }

    /// The time of the first that is ready and was not handed out.
    fn time(&self) -> Option<u64> {
        self.entries[self.passed..self.ready].first().map(|entry| entry.time)
    }

    /// That one.
    fn first<'a>(&self, ring: &'a Ring) -> (&'a RecordHeader, &'a [u8]) {
        let place = ring.place(self.entries[self.passed].position);
        let header = header(ring.bytes(place, RecordHeader::SIZE));
        (header, ring.bytes(place + header.packet(), header.cap_len as usize))
    }

    /// Goes on behind it. Returns the time of the next.
    fn pass(&mut self) -> Option<u64> {
        self.passed += 1;
        self.time()
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
