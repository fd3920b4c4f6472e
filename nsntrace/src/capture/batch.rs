//! What is there to be written, in the order of time.
//!
//! Packets come by the ring buffer, one by one or a stage full, and from stages that still fill. Each processor stamps
//! its packets in order, but takes its place in the ring buffer later, when another may have been faster.

use std::{
    cmp::Ordering::{Equal, Greater, Less},
    ops::ControlFlow,
};

use nsntrace_ebpf::{ALIGN, RecordHeader, Stage};

use super::{
    processors::{Processors, Taken},
    ring::Ring,
};

/// Stands for the position of a packet that was found on a stage.
const ON_STAGE: u64 = u64::MAX;

/// A packet that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    time: u64,
    /// Position of the ring record that it came with, or [`ON_STAGE`].
    position: u64,
    /// Where its header is: in the ring's data area, or in the copy of the stages.
    place: usize,
}

/// What was found on a processor's stage.
#[derive(Clone, Copy, Debug)]
struct Look {
    cpu: usize,
    /// From where in the stage.
    from: Taken,
    /// Where in the copy.
    place: usize,
    length: usize,
}

/// Packets to be written, and how far each source is taken. Its memory is used again for the next batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: Vec<Entry>,
    looks: Vec<Look>,
    copy: Vec<u8>,
    taken: Vec<Taken>,
}

/// What remains to be done after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// Up to where the ring is to be released.
    pub(super) release: u64,
    /// Whether nothing was left waiting.
    pub(super) caught_up: bool,
}

impl Batch {
    /// An empty batch for so many processors.
    pub(super) fn new(processors: usize) -> Self {
        Self { taken: vec![Taken::default(); processors], ..Self::default() }
    }

    /// How far the stages are taken.
    pub(super) fn taken(&self) -> &[Taken] {
        &self.taken
    }

    /// Finds the packets stamped up to `settled`, and with it all that are older than any that is left waiting.
    pub(super) fn fill(&mut self, ring: &Ring, processors: &Processors, settled: u64) -> Rest {
        // Stages first: what leaves one for the ring meanwhile is found there.
        self.look_at_stages(processors);
        let reached = self.read(ring);

        let ready = ready(&self.entries, settled);
        let waiting = &self.entries[ready..];
        let release = waiting.first().map_or(reached, |first| first.position);
        let oldest_waiting = waiting.iter().map(|entry| entry.time).min().unwrap_or(u64::MAX);
        let mut caught_up = waiting.is_empty();
        self.remember_split(ring, ready);
        self.entries.truncate(ready);
        caught_up &= self.take_from_stages(settled.min(oldest_waiting));

        if !self.entries.is_sorted_by_key(|entry| entry.time) {
            self.entries.sort_by_key(|entry| entry.time);
        }
        Rest { release, caught_up }
    }

    /// Hands the packets out in the order of time, until one is not taken.
    pub(super) fn hand_out<E>(
        &self,
        ring: &Ring,
        mut take: impl FnMut(&RecordHeader, &[u8]) -> ControlFlow<E>,
    ) -> ControlFlow<E> {
        for entry in &self.entries {
            let bytes = |at: usize, length: usize| match entry.position {
                ON_STAGE => &self.copy[entry.place + at..][..length],
                _ => ring.bytes(entry.place + at, length),
            };
            let header = header(bytes(0, RecordHeader::SIZE));
            take(&header, bytes(RecordHeader::SIZE, header.cap_len as usize))?;
        }
        ControlFlow::Continue(())
    }

    fn look_at_stages(&mut self, processors: &Processors) {
        self.copy.clear();
        self.looks.clear();
        for (cpu, taken) in self.taken.iter().enumerate() {
            let place = self.copy.len();
            if let Some((from, end)) = processors.look(cpu, *taken, &mut self.copy) {
                self.looks.push(Look { cpu, from, place, length: end - from.used });
            }
        }
    }

    /// Lists what is in the ring; returns the position after it.
    fn read(&mut self, ring: &Ring) -> u64 {
        self.entries.clear();
        let mut records = ring.records(ring.position());
        for record in records.by_ref() {
            let place = ring.place(record.position);
            let Some(full) = FullStage::read(record.data) else {
                let time = header(record.data).time;
                self.entries.push(Entry { time, position: record.position, place });
                continue;
            };
            let taken = self.taken[full.cpu];
            let start = match full.generation.cmp(&taken.generation) {
                // A later filling is being taken already, so all of this one was.
                Less => full.used,
                Equal => taken.used,
                Greater => 0,
            };
            self.looks.retain(|look| (look.cpu, look.from.generation) != (full.cpu, full.generation));
            let staged = &record.data[Stage::HEADER..][..full.used];
            self.entries.extend(times(staged, start).map(|(time, at)| Entry {
                time,
                position: record.position,
                place: place + Stage::HEADER + at,
            }));
        }
        records.position()
    }

    /// Where a full stage is in the ring and only its first packets are ready, the others are for the next batch.
    fn remember_split(&mut self, ring: &Ring, ready: usize) {
        let Some(first) = self.entries.get(ready).copied() else { return };
        let place = ring.place(first.position);
        let Some(full) = FullStage::read(ring.bytes(place, Stage::HEADER)) else { return };
        self.taken[full.cpu] =
            Taken { generation: full.generation, used: first.place - place - Stage::HEADER };
    }

    /// True if nothing was left on them.
    fn take_from_stages(&mut self, up_to: u64) -> bool {
        let mut all = true;
        for look in &self.looks {
            let staged = &self.copy[look.place..][..look.length];
            let left = times(staged, 0).find(|(time, at)| {
                if *time <= up_to {
                    self.entries.push(Entry { time: *time, position: ON_STAGE, place: look.place + at });
                }
                *time > up_to
            });
            let length = left.map_or(look.length, |(_, at)| at);
            // Nothing taken says nothing: what is remembered may be of the filling before.
            if length > 0 {
                self.taken[look.cpu] = Taken { used: look.from.used + length, ..look.from };
            }
            all &= left.is_none();
        }
        all
    }
}

/// A stage that came by the ring.
#[derive(Clone, Copy)]
struct FullStage {
    generation: u64,
    used: usize,
    cpu: usize,
}

impl FullStage {
    /// None where it is a single packet: that begins with its time, which is not 0.
    fn read(data: &[u8]) -> Option<Self> {
        let word = |field| u64::from_ne_bytes(*data[field..].first_chunk().expect("a record has a header"));
        let number = |field| usize::try_from(word(field)).expect("within a stage");
        (word(std::mem::offset_of!(Stage, zero)) == 0).then(|| Self {
            generation: word(std::mem::offset_of!(Stage, generation)),
            used: number(std::mem::offset_of!(Stage, used)),
            cpu: number(std::mem::offset_of!(Stage, cpu)),
        })
    }
}

/// Times and offsets of the records on a stage, from the offset `start` on.
fn times(staged: &[u8], start: usize) -> impl Iterator<Item = (u64, usize)> {
    let mut next = start;
    std::iter::from_fn(move || {
        let at = next;
        let header = header(staged.get(at..).filter(|rest| !rest.is_empty())?);
        next += (RecordHeader::SIZE + header.cap_len as usize).next_multiple_of(ALIGN);
        Some((header.time, at))
    })
}

fn header(bytes: &[u8]) -> RecordHeader {
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
    };

    use super::*;

    fn entries(times: &[u64]) -> Vec<Entry> {
        times.iter().map(|time| Entry { time: *time, position: 0, place: 0 }).collect()
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

    /// A record as the kernel side makes it.
    fn record(time: u64, length: u32) -> Vec<u8> {
        let header = RecordHeader { time, cap_len: length, wire_len: length, ..RecordHeader::default() };
        // SAFETY: plain data without padding.
        let bytes: [u8; RecordHeader::SIZE] = unsafe { std::mem::transmute(header) };
        let mut record = bytes.to_vec();
        record.resize((record.len() + length as usize).next_multiple_of(ALIGN), 0);
        record
    }

    #[test]
    fn a_stage_is_walked_from_anywhere() {
        let staged = [record(10, 3), record(11, 8), record(12, 1)].concat();
        let size = RecordHeader::SIZE;
        let all = [(10, 0), (11, size + 8), (12, 2 * size + 16)];
        assert_eq!(times(&staged, 0).collect::<Vec<_>>(), all);
        assert_eq!(times(&staged, size + 8).collect::<Vec<_>>(), all[1..]);
        assert_eq!(times(&staged, staged.len()).count(), 0);
    }

    /// A kernel side made of plain files, and the reader.
    struct Bench {
        ring_file: File,
        ring: Ring,
        produced: u64,
        processors: Processors,
        batch: Batch,
        out: Vec<u64>,
    }

    const RING: usize = 4 << 20;
    const PAGE: usize = 4096;

    impl Bench {
        fn new(cpus: usize) -> Self {
            let ring_file = tempfile::tempfile().expect("a file");
            // What wraps round is not tried here: a file cannot be mapped twice in a row.
            ring_file.set_len((2 * PAGE + 2 * RING) as u64).expect("long enough");
            let memory = tempfile::tempfile().expect("a file");
            memory.set_len((cpus * size_of::<nsntrace_ebpf::Processor>()) as u64).expect("long enough");
            Self {
                ring: Ring::map(ring_file.try_clone().expect("a descriptor").into(), RING).expect("mapped"),
                ring_file,
                produced: 0,
                processors: Processors::map(memory.as_fd(), cpus).expect("mapped"),
                batch: Batch::new(cpus),
                out: Vec::new(),
            }
        }

        fn push(&mut self, data: &[u8]) {
            let length = u32::try_from(data.len()).expect("short").to_ne_bytes();
            let place = (2 * PAGE) as u64 + self.produced;
            self.ring_file.write_all_at(&length, place).expect("written");
            self.ring_file.write_all_at(data, place + 8).expect("written");
            self.produced += (data.len() + 8).next_multiple_of(8) as u64;
            self.ring_file.write_all_at(&self.produced.to_ne_bytes(), PAGE as u64).expect("written");
        }

        fn stage(&mut self, cpu: usize, record: &[u8]) {
            let stage = self.processors.stage(cpu);
            // SAFETY: nobody else uses the stage, and no test fills one.
            unsafe {
                let used = usize::try_from((*stage).used).expect("small");
                let place = (&raw mut (*stage).records).cast::<u8>().add(used);
                std::ptr::copy_nonoverlapping(record.as_ptr(), place, record.len());
                (*stage).used += record.len() as u64;
            }
        }

        fn used(&self, cpu: usize) -> u64 {
            // SAFETY: nobody else uses the stage.
            unsafe { (*self.processors.stage(cpu)).used }
        }

        fn pass_on(&mut self, cpu: usize) {
            let stage = self.processors.stage(cpu);
            let length = Stage::HEADER + usize::try_from(self.used(cpu)).expect("small");
            // SAFETY: nobody else uses the stage.
            let data = unsafe {
                (*stage).cpu = cpu as u64;
                std::slice::from_raw_parts(stage.cast::<u8>(), length).to_vec()
            };
            self.push(&data);
            // SAFETY: as above.
            unsafe {
                (*stage).used = 0;
                (*stage).generation += 1;
            }
        }

        fn drain(&mut self, settled: u64) {
            let rest = self.batch.fill(&self.ring, &self.processors, settled);
            let out = &mut self.out;
            let _: ControlFlow<()> = self.batch.hand_out(&self.ring, |header, packet| {
                assert_eq!(packet.len(), header.cap_len as usize);
                out.push(header.time);
                ControlFlow::Continue(())
            });
            self.ring.release(rest.release);
        }
    }

    #[test]
    fn a_filling_that_was_taken_from_the_stage_is_not_taken_again() {
        let mut bench = Bench::new(2);
        for time in [10, 11, 12] {
            bench.stage(0, &record(time, 60));
        }
        bench.drain(50);
        // The first processor stamps a packet at 100 and finds its stage full; the second stamps at 101, and is faster.
        bench.push(&record(101, 1500));
        bench.pass_on(0);
        bench.stage(0, &record(100, 60));
        bench.drain(100);
        bench.drain(200);
        assert_eq!(bench.out, [10, 11, 12, 100, 101]);
    }

    /// Three processors stamp packets and let them be seen some time later, by one way or the other, while the reader
    /// looks at any moment: each packet comes out once.
    #[test]
    fn nothing_is_lost_or_doubled() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bench = Bench::new(3);
            let mut sent = Vec::new();
            let mut stamped: [Option<(u64, bool)>; 3] = [None; 3];
            let mut now = 1000;
            for _ in 0..2000 {
                now += random.u64(1..4);
                let cpu = random.usize(..3);
                match stamped[cpu] {
                    None => stamped[cpu] = Some((now, random.u32(..10) < 7)),
                    Some((_, true)) if bench.used(cpu) > 600 => bench.pass_on(cpu),
                    Some((time, staged)) => {
                        let length = if staged { random.u32(1..100) } else { random.u32(257..400) };
                        let record = record(time, length);
                        if staged {
                            bench.stage(cpu, &record)
                        } else {
                            bench.push(&record)
                        }
                        sent.push(time);
                        stamped[cpu] = None;
                    }
                }
                if random.u32(..12) == 0 {
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
