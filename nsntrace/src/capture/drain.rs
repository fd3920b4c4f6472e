//! The thread that moves records from the ring into the trace file.

use std::{
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use tokio::sync::oneshot;

use super::{
    clock::{Clock, boot_now},
    ring::{Record, Ring},
};
use crate::{
    error::{Context, Result},
    output::pcap::PcapWriter,
};

/// How long the thread stays away after there was something to do. The kernel wakes it only when it had caught up, so
/// this bounds wake-ups, whose price the program pays; and it is the delay of a live trace.
const PAUSE: Duration = Duration::from_millis(4);

/// A processor stamps a packet, then takes its place in the ring; between the two another may be faster. After so
/// long, in nanoseconds, the order of places and of stamps is taken to be final.
const SETTLE: u64 = 1_000_000;

/// Records looked at together.
const BATCH: usize = 4096;

/// How a drain ended.
#[derive(Debug)]
pub enum End {
    /// It was told to, and everything is in the file.
    Asked,
    /// The wanted number of packets is in the file.
    Enough,
    /// The file takes no more: why. Packets so far are in it.
    Broken(std::io::Error),
}

/// What a drain has done.
#[derive(Debug)]
pub struct Outcome {
    /// Packets in the file.
    pub packets: u64,
    /// How it ended.
    pub end: End,
}

/// A running drain.
#[derive(Debug)]
pub struct Drain {
    stop: Arc<EventFd>,
    written: Arc<AtomicU64>,
    outcome: oneshot::Receiver<Outcome>,
}

impl Drain {
    /// Starts the thread. It ends by itself after `limit` packets, or when the file takes no more.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn start(ring: Ring, writer: PcapWriter, limit: Option<u64>) -> Result<Self> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let stop = Arc::new(stop.context("make", "an event descriptor")?);
        let written = Arc::new(AtomicU64::new(0));
        let (sender, outcome) = oneshot::channel();
        let worker = Worker {
            ring,
            writer,
            clock: Clock::new(),
            left: limit.unwrap_or(u64::MAX),
            stop: Arc::clone(&stop),
            written: Arc::clone(&written),
            batch: Vec::with_capacity(BATCH),
        };
        thread::Builder::new()
            .name("drain".into())
            .spawn(move || sender.send(worker.run()))
            .context("start", "a thread")?;
        Ok(Self { stop, written, outcome })
    }

    /// Packets written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Tells the thread to write what is in the ring and to end. The capture must be detached before.
    pub fn stop(&self) {
        // It fails only when the counter is about to overflow, and then the thread has been told often enough.
        let _ = self.stop.write(1);
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> Outcome {
        let lost =
            |_| Outcome { packets: self.written.load(Ordering::Relaxed), end: End::Broken(panicked()) };
        (&mut self.outcome).await.unwrap_or_else(lost)
    }
}

fn panicked() -> std::io::Error {
    std::io::Error::other("the writing thread failed")
}

struct Worker {
    ring: Ring,
    writer: PcapWriter,
    clock: Clock,
    /// Packets still wanted.
    left: u64,
    stop: Arc<EventFd>,
    written: Arc<AtomicU64>,
    batch: Vec<Record>,
}

impl Worker {
    fn run(mut self) -> Outcome {
        let result = self.work();
        let end = match result {
            Err(error) => End::Broken(error),
            Ok(()) if self.left == 0 => End::Enough,
            Ok(()) => End::Asked,
        };
        Outcome { packets: self.writer.packets(), end }
    }

    fn work(&mut self) -> std::io::Result<()> {
        self.writer.begin()?;
        let mut caught_up = true;
        loop {
            let stopped = (caught_up && self.wait_for_records()?) || self.pause()?;
            let now = boot_now();
            self.clock.renew(now);
            caught_up = self.drain(if stopped { u64::MAX } else { now.saturating_sub(SETTLE) })?;
            if stopped || self.left == 0 {
                return Ok(());
            }
        }
    }

    /// Blocks until there is a record; true if the thread was told to end.
    fn wait_for_records(&self) -> std::io::Result<bool> {
        let mut fds = [self.stop.as_fd(), self.ring.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        wait(&mut fds, PollTimeout::NONE)
    }

    /// Lets records gather; true if the thread was told to end.
    fn pause(&self) -> std::io::Result<bool> {
        let timeout = PollTimeout::try_from(PAUSE).unwrap_or(PollTimeout::ZERO);
        wait(&mut [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)], timeout)
    }

    /// Writes what is in the ring with a stamp up to `settled`; true if nothing was left.
    fn drain(&mut self, settled: u64) -> std::io::Result<bool> {
        loop {
            let mut records = self.ring.records(self.ring.position());
            self.batch.clear();
            self.batch.extend(records.by_ref().take(BATCH));
            let reached = records.position();
            let full = self.batch.len() == BATCH;
            let ready = ready(&self.batch, settled, full);
            let end = match ready {
                0 if !self.batch.is_empty() => break Ok(false),
                ready if ready == self.batch.len() => reached,
                ready => self.batch[ready - 1].end,
            };
            self.write(ready)?;
            self.ring.release(end);
            if !full || self.left == 0 {
                self.writer.flush()?;
                self.written.store(self.writer.packets(), Ordering::Relaxed);
                break Ok(ready == self.batch.len());
            }
        }
    }

    /// Writes the first records of the batch in the order of their stamps.
    fn write(&mut self, ready: usize) -> std::io::Result<()> {
        let ready = &mut self.batch[..ready];
        if !ready.is_sorted_by_key(|record| record.header.time) {
            ready.sort_by_key(|record| record.header.time);
        }
        for record in ready.iter() {
            if self.left == 0 {
                break;
            }
            let wall = self.clock.wall(record.header.time);
            self.writer.packet(wall, &record.header, self.ring.packet(record))?;
            self.left -= 1;
        }
        Ok(())
    }
}

/// True if the first descriptor, the one to stop by, is ready.
fn wait(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> std::io::Result<bool> {
    match poll(fds, timeout) {
        Err(nix::Error::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(fds[0].any() == Some(true)),
    }
}

/// How many records at the front may be written: those stamped up to `settled`, unless a later place holds an earlier
/// stamp. Behind a `full` batch others follow that are not known, so its youngest records wait for them, except where
/// all of it is that young: it must go on.
fn ready(batch: &[Record], settled: u64, full: bool) -> usize {
    let time = |record: &Record| record.header.time;
    let newest = batch.iter().map(time).max().unwrap_or(0);
    let settled = if full { settled.min(newest.saturating_sub(SETTLE)) } else { settled };
    let old = batch.iter().position(|record| time(record) > settled).unwrap_or(batch.len());
    let (front, back) = batch.split_at(old);
    let straggler = back.iter().map(time).min().unwrap_or(u64::MAX);
    let ready = front.iter().position(|record| time(record) > straggler).unwrap_or(old);
    if full && ready == 0 { batch.len() } else { ready }
}

#[cfg(test)]
mod tests {
    use nsntrace_ebpf::RecordHeader;

    use super::*;

    fn batch(times: &[u64]) -> Vec<Record> {
        let header = |time| RecordHeader { time, ..RecordHeader::default() };
        times.iter().map(|time| Record::at(header(*time), 0, 0)).collect()
    }

    #[test]
    fn settled_records_are_ready() {
        assert_eq!(ready(&batch(&[1, 2, 3]), 9, false), 3);
        assert_eq!(ready(&batch(&[1, 2, 3]), 2, false), 2);
        assert_eq!(ready(&batch(&[2, 1, 3]), 2, false), 2);
        assert_eq!(ready(&batch(&[3, 4]), 2, false), 0);
        assert_eq!(ready(&batch(&[]), 2, false), 0);
    }

    #[test]
    fn a_straggler_holds_back_what_is_younger() {
        assert_eq!(ready(&batch(&[1, 2, 5, 8, 4, 9]), 7, false), 2);
        assert_eq!(ready(&batch(&[1, 2, 5, 8, 6]), 7, false), 3);
    }

    #[test]
    fn behind_a_full_batch_others_may_follow() {
        let ms = 1_000_000;
        assert_eq!(ready(&batch(&[ms, 2 * ms, 4 * ms]), u64::MAX, true), 2);
        assert_eq!(ready(&batch(&[ms, ms + 1, ms + 2]), u64::MAX, true), 3);
    }
}
