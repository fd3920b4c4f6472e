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

/// A packet that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    time: u64,
    whereabouts: Whereabouts,
}

/// Where a packet's header is, in as little as can be: there are as many as there are packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Whereabouts(u64);

/// The same, to be told apart.
enum Source {
    /// The ring buffer, in which it has this position.
    Ring(u64),
    /// A lane, and what [`Lanes::bytes`] finds it by.
    Lane(usize),
}

impl Whereabouts {
    /// Set for a place in a lane. No position in the ring comes so far.
    const LANE: u64 = 1 << 63;

    fn in_ring(position: u64) -> Self {
        Self(position)
    }

    fn in_lane(place: usize) -> Self {
        Self(place as u64 | Self::LANE)
    }

    fn source(self) -> Source {
        if self.0 & Self::LANE == 0 {
            Source::Ring(self.0)
        } else {
            Source::Lane((self.0 & !Self::LANE) as usize)
        }
    }
}

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
}

impl Batch {
    /// Finds the oldest packets stamped up to `settled`, for some time past: all, or as many as may be written at a time.
    pub(super) fn fill(&mut self, ring: &Ring, lanes: &Lanes, settled: u64) -> Left {
        // There is no room to wait for anybody, or nobody to be waited for.
        let heeds = settled != u64::MAX && !ring.is_nearly_full();
        let begun = |cpu| if heeds { lanes.begun(cpu) } else { None };
        let held = (0..lanes.count()).map(|cpu| self.begun.up_to(RING + 1 + cpu, begun(cpu)));
        let up_to = held.fold(settled, u64::min);
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
                false => self.begun.up_to(RING, records.begun().filter(|_| heeds)),
            };
            up_to = settled.min(held);
            ready = self::ready(&self.entries, up_to);
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

/// How many entries at the front are ready: stamped up to `settled`, unless one behind that is not is older.
fn ready(entries: &[Entry], settled: u64) -> usize {
    let old = entries.iter().position(|entry| entry.time > settled).unwrap_or(entries.len());
    let (front, back) = entries.split_at(old);
    let straggler = back.iter().map(|entry| entry.time).min().unwrap_or(u64::MAX);
    front.iter().position(|entry| entry.time > straggler).unwrap_or(old)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::{fd::AsFd, unix::fs::FileExt},
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        thread::{self, ScopedJoinHandle},
    };

    use nsntrace_ebpf::{AHEAD, BEGUN, CHUNK, LANE_PACKET, LANE_RECORD, ahead, behind};

    use super::*;
    use crate::{capture::processors::Processors, page};

    fn entries(times: &[u64]) -> Vec<Entry> {
        times.iter().map(|time| Entry { time: *time, whereabouts: Whereabouts::in_lane(0) }).collect()
    }

    #[test]
    fn settled_entries_are_ready() {
        assert_eq!(ready(&entries(&[1, 2, 3]), 9), 3);
        assert_eq!(ready(&entries(&[1, 2, 3]), 2), 2);
        assert_eq!(ready(&entries(&[2, 1, 3]), 2), 2);
        assert_eq!(ready(&entries(&[3, 4]), 2), 0);
        assert_eq!(ready(&entries(&[]), 2), 0);
    }

    #[test]
    fn a_straggler_holds_back_what_is_younger() {
        assert_eq!(ready(&entries(&[1, 2, 5, 8, 4, 9]), 7), 2);
        assert_eq!(ready(&entries(&[1, 2, 5, 8, 6]), 7), 3);
    }

    fn bytes_of(header: RecordHeader) -> [u8; RecordHeader::SIZE] {
        // SAFETY: plain data without padding.
        unsafe { std::mem::transmute(header) }
    }

    /// A record as the kernel side makes it.
    fn record(time: u64, length: u32) -> Vec<u8> {
        let header = RecordHeader { time, cap_len: length, wire_len: length, ..RecordHeader::default() };
        let mut record = bytes_of(header).to_vec();
        record.resize(record.len() + length as usize, 0);
        record
    }

    /// A kernel side made of plain files, and the reader.
    struct Bench {
        ring_file: File,
        ring: Ring,
        produced: u64,
        lanes_file: File,
        processors: Arc<Processors>,
        lanes: Lanes,
        batch: Batch,
        out: Vec<u64>,
    }

    const RING: usize = 4 << 20;
    const CHUNKS: usize = 2;
    const LANE: u64 = (CHUNKS * CHUNK) as u64;

    fn file(length: usize) -> File {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(length as u64).expect("long enough");
        file
    }

    impl Bench {
        fn new(cpus: usize) -> Self {
            // What wraps round is not tried here: a file cannot be mapped twice in a row.
            let ring_file = file(2 * page::size() as usize + 2 * RING);
            let books = file(cpus * size_of::<nsntrace_ebpf::Processor>());
            let lanes_file = file(cpus * CHUNKS * CHUNK);
            let processors = Arc::new(
                Processors::map(books.as_fd(), cpus, u32::try_from(LANE).expect("small"), 0).expect("mapped"),
            );
            Self {
                ring: Ring::map(ring_file.try_clone().expect("a descriptor").into(), RING).expect("mapped"),
                ring_file,
                produced: 0,
                lanes: Lanes::map(lanes_file.as_fd(), processors.clone()).expect("mapped"),
                lanes_file,
                processors,
                batch: Batch::default(),
                out: Vec::new(),
            }
        }

        /// Behind a gap.
        fn push(&mut self, record: &[u8]) {
            let (header, packet) = record.split_at(RecordHeader::SIZE);
            let gap = u8::try_from(self.produced % 64).expect("small");
            let header = RecordHeader { gap, ..self::header(header) };
            let data = [&bytes_of(header)[..], &vec![0xff; gap.into()], packet].concat();
            let length = u32::try_from(data.len()).expect("short").to_ne_bytes();
            let place = u64::from(2 * page::size()) + self.produced;
            self.ring_file.write_all_at(&length, place).expect("written");
            self.ring_file.write_all_at(&data, place + 8).expect("written");
            self.produced += (data.len() + 8).next_multiple_of(8) as u64;
            self.ring_file.write_all_at(&self.produced.to_ne_bytes(), page::size().into()).expect("written");
        }

        /// Where the lane is full, into the ring.
        fn append(&mut self, cpu: usize, record: &[u8]) {
            let head = self.processors.head(cpu);
            if head + (LANE_RECORD + 2 * AHEAD) as u64 - self.processors.tail(cpu) > LANE {
                return self.push(record);
            }
            let place = cpu as u64 * LANE + head % LANE;
            self.lanes_file.write_all_at(record, place).expect("written");
            self.processors.set_head(cpu, behind(head, record.len() as u64));
            let at = usize::try_from(head % CHUNK as u64).expect("small");
            let Some(part) = ahead(at, at + record.len()) else { return };
            for line in (part..part + AHEAD).step_by(64) {
                let place = place - at as u64 + line as u64;
                self.lanes_file.write_all_at(&[0; 8], place).expect("written");
            }
        }

        fn drain(&mut self, settled: u64) {
            while self.drain_part(settled) == Left::More {}
        }

        fn drain_part(&mut self, settled: u64) -> Left {
            let left = self.batch.fill(&self.ring, &self.lanes, settled);
            let out = &mut self.out;
            let _: ControlFlow<()> = self.batch.hand_out(&self.ring, &self.lanes, |header, packet| {
                assert_eq!(packet, vec![0; header.cap_len as usize]);
                out.push(header.time);
                ControlFlow::Continue(())
            });
            self.batch.release(&mut self.ring, &mut self.lanes);
            left
        }
    }

    #[test]
    fn what_is_taken_ahead_is_free_and_in_the_chunk() {
        let mut taken = 0;
        for at in (0..=CHUNK - LANE_RECORD).step_by(8) {
            for length in 1..=LANE_PACKET as usize {
                let end = at + RecordHeader::SIZE + length;
                let Some(part) = ahead(at, end) else { continue };
                assert!(part >= end && part <= end + AHEAD && part + AHEAD <= CHUNK, "{at} {length}: {part}");
                taken += 1;
            }
        }
        assert!(taken > 0);
    }

    #[test]
    fn what_is_too_young_stays_where_it_is() {
        let mut bench = Bench::new(2);
        for time in [10, 11, 12] {
            bench.append(0, &record(time, 60));
        }
        bench.push(&record(9, 1500));
        bench.append(1, &record(8, 60));
        bench.drain(11);
        assert_eq!(bench.out, [8, 9, 10, 11]);
        assert!(!bench.lanes.are_empty());
        bench.drain(12);
        assert_eq!(bench.out, [8, 9, 10, 11, 12]);
        assert!(bench.lanes.are_empty());
    }

    #[test]
    fn a_lane_waits_for_what_is_older_in_the_ring() {
        let mut bench = Bench::new(1);
        bench.push(&record(30, 1500));
        bench.push(&record(20, 1500));
        bench.append(0, &record(25, 60));
        bench.drain(26);
        assert!(bench.out.is_empty());
        bench.drain(30);
        assert_eq!(bench.out, [20, 25, 30]);
    }

    #[test]
    fn what_finds_its_lane_full_goes_by_the_ring() {
        let mut bench = Bench::new(1);
        let sent: Vec<u64> = (1..2000).collect();
        sent.iter().for_each(|time| bench.append(0, &record(*time, 100)));
        assert!(!bench.ring.is_empty());
        bench.drain(u64::MAX);
        assert_eq!(bench.out, sent);
        assert!(bench.ring.is_empty() && bench.lanes.are_empty());
    }

    #[test]
    fn a_burst_goes_out_in_parts_and_in_order() {
        let mut bench = Bench::new(1);
        let mut times: Vec<u64> = (1..3000).map(|count| count * 10_000).collect();
        // Two swapped, each time 70 apart, or 700 microseconds.
        (0..2900).step_by(100).for_each(|first| times.swap(first, first + 70));
        times.iter().for_each(|time| bench.push(&record(*time, 1000)));
        let mut parts = 0;
        let mut left = Left::More;
        while left != Left::Nothing {
            let before = bench.ring.position();
            left = bench.drain_part(u64::MAX);
            assert!(bench.ring.position() - before <= bench.ring.part());
            parts += 1;
        }
        assert!(parts > 6, "{parts}");
        times.sort_unstable();
        assert_eq!(bench.out, times);
    }

    #[test]
    fn what_came_at_the_same_time_goes_out_together() {
        let mut bench = Bench::new(1);
        let times: Vec<u64> = (STAMPED..STAMPED + 3000).rev().collect();
        times.iter().for_each(|time| bench.push(&record(*time, 1000)));
        assert_eq!(bench.drain_part(u64::MAX), Left::Nothing);
        assert!(bench.out.is_sorted());
        assert_eq!(bench.out.len(), times.len());
    }

    /// Two processors write at the same time as the reader takes, and may be held up in the middle of it.
    #[test]
    fn nobody_is_overtaken_by_who_was_stamped_later() {
        const EACH: usize = 20_000;
        let mut bench = Bench::new(2);
        let (lanes, processors) =
            (bench.lanes_file.try_clone().expect("a descriptor"), bench.processors.clone());
        let clock = AtomicU64::new(1);
        let write = |cpu: usize| {
            for _ in 0..EACH {
                let head = processors.head(cpu);
                while head + (LANE_RECORD + 2 * AHEAD) as u64 - processors.tail(cpu) > LANE {
                    thread::yield_now();
                }
                processors.set_head(cpu, head | BEGUN);
                let record = record(clock.fetch_add(1, Ordering::SeqCst), 60);
                thread::yield_now();
                lanes.write_all_at(&record, cpu as u64 * LANE + head % LANE).expect("written");
                processors.set_head(cpu, behind(head, record.len() as u64));
            }
        };
        thread::scope(|scope| {
            let write = &write;
            let writers = [0, 1].map(|cpu| scope.spawn(move || write(cpu)));
            while !writers.iter().all(ScopedJoinHandle::is_finished) {
                bench.drain(clock.load(Ordering::SeqCst) - 1);
            }
        });
        bench.drain(u64::MAX);
        assert_eq!(bench.out.len(), 2 * EACH);
        assert!(bench.out.is_sorted());
    }

    /// Three processors stamp packets and let them be seen some time later, by one way or the other, while the reader
    /// looks at any moment: each packet comes out once, the lanes going round and round.
    #[test]
    fn nothing_is_lost_or_doubled() {
        for seed in 0..30 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bench = Bench::new(3);
            let mut sent = Vec::new();
            let mut stamped: [Option<u64>; 3] = [None; 3];
            let mut now = 1000;
            for _ in 0..20_000 {
                now += random.u64(1..4);
                let cpu = random.usize(..3);
                match stamped[cpu].take() {
                    None => stamped[cpu] = Some(now),
                    Some(time) => {
                        if random.u32(..10) < 9 {
                            bench.append(cpu, &record(time, random.u32(1..257)));
                        } else {
                            bench.push(&record(time, random.u32(257..400)));
                        }
                        sent.push(time);
                    }
                }
                if random.u32(..100) == 0 {
                    bench.drain(now.saturating_sub(random.u64(1..30)));
                }
            }
            bench.drain(u64::MAX);
            sent.sort_unstable();
            bench.out.sort_unstable();
            assert_eq!(bench.out, sent, "seed {seed}");
        }
    }
}
