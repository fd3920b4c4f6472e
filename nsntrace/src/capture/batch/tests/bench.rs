//! A kernel side made of plain files.

use std::{
    fs::File,
    ops::ControlFlow,
    os::{fd::AsFd, unix::fs::FileExt},
    sync::Arc,
};

use nsntrace_ebpf::{AHEAD, CHUNK, LANE_RECORD, RecordHeader, ahead, behind};

use super::super::{Batch, Left};
use crate::{
    capture::{
        lanes::Lanes,
        processors::Processors,
        ring::BUSY,
        rings::{self, Rings},
    },
    page,
};

fn bytes_of(header: RecordHeader) -> [u8; RecordHeader::SIZE] {
    // SAFETY: plain data without padding.
    unsafe { std::mem::transmute(header) }
}

/// A header, wherever it lies.
fn read(bytes: &[u8]) -> RecordHeader {
    let bytes: &[u8; RecordHeader::SIZE] = bytes.first_chunk().expect("a header");
    // SAFETY: plain data without padding.
    unsafe { std::mem::transmute(*bytes) }
}

/// A record as the kernel side makes it.
pub(super) fn record(time: u64, length: u32) -> Vec<u8> {
    let header = RecordHeader { time, cap_len: length, wire_len: length, ..RecordHeader::default() };
    let mut record = bytes_of(header).to_vec();
    record.resize(record.len() + length as usize, 0);
    record
}

/// Whether a lane has no room for a record, as the kernel side has it.
pub(super) fn is_full(processors: &Processors, cpu: usize) -> bool {
    processors.head(cpu) + (LANE_RECORD + 2 * AHEAD) as u64 - processors.tail(cpu) > LANE
}

/// A kernel side made of plain files, and the reader.
pub(super) struct Bench {
    ring_files: [File; rings::COUNT],
    pub(super) rings: Rings,
    produced: [u64; rings::COUNT],
    pub(super) lanes_file: File,
    pub(super) processors: Arc<Processors>,
    pub(super) lanes: Lanes,
    pub(super) batch: Batch,
    pub(super) out: Vec<u64>,
}

/// Bytes of the far ring.
const FAR: u32 = 4 << 20;
const CHUNKS: usize = 2;
pub(super) const LANE: u64 = (CHUNKS * CHUNK) as u64;

fn file(length: usize) -> File {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(length as u64).expect("long enough");
    file
}

impl Bench {
    pub(super) fn new(cpus: usize) -> Self {
        // What wraps round is not tried here: a file cannot be mapped twice in a row.
        let ring_files = [rings::near(FAR), FAR].map(|size| file(2 * (page::size() + size) as usize));
        let [near, far] = ring_files.each_ref().map(|file| file.try_clone().expect("a descriptor").into());
        let books = file(cpus * size_of::<nsntrace_ebpf::Processor>());
        let lanes_file = file(cpus * CHUNKS * CHUNK);
        let processors = Arc::new(
            Processors::map(books.as_fd(), cpus, u32::try_from(LANE).expect("small"), 0).expect("mapped"),
        );
        Self {
            rings: Rings::map(near, far, FAR).expect("mapped"),
            ring_files,
            produced: [0; rings::COUNT],
            lanes: Lanes::map(lanes_file.as_fd(), processors.clone()).expect("mapped"),
            lanes_file,
            processors,
            batch: Batch::new(),
            out: Vec::new(),
        }
    }

    /// Into the near ring, and where that is full into the far one.
    pub(super) fn push(&mut self, record: &[u8]) -> u64 {
        let is_full = self.produced[0] + record.len() as u64 + 128 > rings::near(FAR).into();
        self.push_into(is_full.into(), record)
    }

    /// Behind a gap. Returns the record's place.
    pub(super) fn push_into(&mut self, ring: usize, record: &[u8]) -> u64 {
        let (file, produced) = (&self.ring_files[ring], &mut self.produced[ring]);
        let (header, packet) = record.split_at(RecordHeader::SIZE);
        let gap = u8::try_from(*produced % 64).expect("small");
        let header = RecordHeader { gap, ..read(header) };
        let data = [&bytes_of(header)[..], &vec![0xff; gap.into()], packet].concat();
        let length = u32::try_from(data.len()).expect("short").to_ne_bytes();
        let place = u64::from(2 * page::size()) + *produced;
        file.write_all_at(&length, place).expect("written");
        file.write_all_at(&data, place + 8).expect("written");
        *produced += (data.len() + 8).next_multiple_of(8) as u64;
        file.write_all_at(&produced.to_ne_bytes(), page::size().into()).expect("written");
        place
    }

    /// Lets a record of a ring be one that is still being written, or no longer.
    pub(super) fn toggle(&mut self, ring: usize, place: u64) {
        let (file, mut length) = (&self.ring_files[ring], [0; 4]);
        file.read_exact_at(&mut length, place).expect("read");
        let length = u32::from_ne_bytes(length) ^ BUSY;
        file.write_all_at(&length.to_ne_bytes(), place).expect("written");
    }

    /// Where the lane is full, into a ring.
    pub(super) fn append(&mut self, cpu: usize, record: &[u8]) {
        if is_full(&self.processors, cpu) {
            self.push(record);
            return;
        }
        let head = self.processors.head(cpu);
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

    pub(super) fn drain(&mut self, settled: u64) {
        while self.drain_part(settled) == Left::More {}
    }

    pub(super) fn drain_part(&mut self, settled: u64) -> Left {
        self.batch.fill(&self.rings, &self.lanes, settled);
        let (before, out) = (self.out.len(), &mut self.out);
        let _: ControlFlow<()> = self.batch.hand_out(&self.rings, &self.lanes, |header, packet| {
            assert_eq!(packet, vec![0; header.cap_len as usize]);
            out.push(header.time);
            ControlFlow::Continue(())
        });
        assert!(out[before..].is_sorted());
        self.batch.release(&mut self.rings, &mut self.lanes)
    }
}
