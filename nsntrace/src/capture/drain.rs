//! The thread that moves records from the rings into the trace file.

use std::{
    ops::ControlFlow,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
};
use nsntrace_ebpf::RecordHeader;
use tokio::sync::oneshot;

use super::{
    Packets,
    batch::{Batch, Left, SETTLE},
    clock::{Clock, boot_now},
    rings::{self, Rings},
};
use crate::{
    error::{Context, Error, Result},
    output::{pcapng::Moment, writer::Writer},
    talk::Summary,
};

/// How long the thread stays away after there was something to do: the program pays the price of each time that it comes, some
/// 65 us where others have used the processor's caches meanwhile. With 16 ms the thread takes a quarter more, more than tcpdump for
/// packets that are cut, and a fast connection is faster only where its ends may not leave their processors. The kernel side wakes
/// it before where much has gathered.
const PAUSE: Duration = Duration::from_millis(64);

/// The same where processes are watched, or logged keys read: neither waits for as long as packets do.
const WATCHING_PAUSE: Duration = Duration::from_millis(16);

/// The same where somebody reads the trace as it is written.
const LIVE_PAUSE: Duration = Duration::from_millis(4);

/// The same where too much was too young to be taken, for a ring buffer that is full wakes nobody; and the least.
const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// How often such a pause is made at the end, at most.
const LAST_WAITS: usize = 1000;

/// After so long the thread looks once more, since it said that it is asleep. A packet that was just on its way then, and wakes
/// nobody, is seen the first time, unless its processor was taken from the machine; then the second.
const LAST_LOOKS: [Duration; 3] = [Duration::from_millis(4), Duration::from_secs(1), FOREVER];

/// What the alarm says where the thread is to stop.
const STOP: u64 = 1;

/// Longer than anybody waits; the kernel takes no more.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How a drain ended.
#[derive(Debug)]
pub enum End {
    /// It was told to, and everything is written.
    Asked,
    /// The wanted number of packets or of files is written.
    Enough,
    /// A file takes no more: why. Packets so far are in it.
    Broken(Error),
}

/// What a drain has done.
#[derive(Debug)]
pub struct Outcome {
    /// Packets written.
    pub packets: u64,
    /// Events of processes that were lost, see [`Writer::missed`].
    pub missed: u64,
    /// How it ended.
    pub end: End,
    /// Who talked to whom, if that was wanted.
    pub summary: Option<Box<Summary>>,
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
    pub fn start(packets: Packets, writer: Writer, limit: Option<u64>) -> Result<Self> {
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let stop = Arc::new(stop.context("make", "an event descriptor")?);
        let written = Arc::new(AtomicU64::new(0));
        let (sender, outcome) = oneshot::channel();
        let worker = Worker {
            alarm: alarm(&stop, &packets.rings)?,
            batch: Batch::new(),
            packets,
            writer,
            clock: Clock::new(),
            left: limit.unwrap_or(u64::MAX),
            stop: Arc::clone(&stop),
            written: Arc::clone(&written),
        };
        // Scheduled as all are: as SCHED_BATCH it waits behind whoever runs, who is then moved to another processor, and a fast
        // connection loses 3 % of its speed.
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

    /// Tells the thread to write what is in the rings and to end. The capture must be detached before.
    pub fn stop(&self) {
        // It fails only when the counter is about to overflow, and then the thread has been told often enough.
        let _ = self.stop.write(1);
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> Outcome {
        let lost = |_| Outcome {
            packets: self.written.load(Ordering::Relaxed),
            missed: 0,
            end: End::Broken(panicked()),
            summary: None,
        };
        (&mut self.outcome).await.unwrap_or_else(lost)
    }
}

fn panicked() -> Error {
    Error::told("the writing thread failed")
}

/// Tells when the thread is to stop, and each time that the kernel side wakes it: not that there are packets.
fn alarm(stop: &EventFd, rings: &Rings) -> Result<Epoll> {
    let called = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
    let tell = |alarm: &Epoll| {
        alarm.add(stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        rings.each().iter().try_for_each(|ring| alarm.add(ring, called))
    };
    let made = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).and_then(|alarm| tell(&alarm).map(|()| alarm));
    made.context("wait for", "packets")
}

struct Worker {
    packets: Packets,
    alarm: Epoll,
    batch: Batch,
    writer: Writer,
    clock: Clock,
    /// Packets still wanted.
    left: u64,
    stop: Arc<EventFd>,
    written: Arc<AtomicU64>,
}

impl Worker {
    fn run(mut self) -> Outcome {
        let result = self.work();
        // What passes from here on nobody takes: it is none of the trace, and not lost from it.
        self.packets.processors.end();
        let end = match result.and_then(|()| self.end_file()) {
            Err(error) => End::Broken(error),
            Ok(()) if self.left == 0 => End::Enough,
            Ok(()) => End::Asked,
        };
        let (packets, missed) = (self.writer.packets(), self.writer.missed());
        Outcome { packets, missed, end, summary: self.writer.into_summary().map(Box::new) }
    }

    fn work(&mut self) -> Result<()> {
        self.writer.confine()?;
        let time = self.clock.at(self.packets.since);
        self.writer.begin(Moment { time, ..Moment::default() })?;
        let usual = if self.writer.is_live() {
            LIVE_PAUSE
        } else if self.writer.watches() {
            WATCHING_PAUSE
        } else {
            PAUSE
        };
        let (mut caught_up, mut pause) = (true, usual);
        loop {
            // What waits for its secrets does so for them, not for packets.
            let is_idle = caught_up && !self.writer.is_holding();
            // What woke the thread ends the pause behind the sleep at once: what came before it said that it is awake did not.
            let stopped = (is_idle && self.sleep()?) || self.pause(pause)?;
            let now = boot_now();
            self.clock.renew(now);
            let settled = now.saturating_sub(SETTLE);
            caught_up = self.drain(if stopped { u64::MAX } else { settled })?;
            pause = if self.packets.rings.are_nearly_full() { SHORT_PAUSE } else { usual };
            if stopped {
                return self.wait_for_the_last();
            }
            if caught_up && self.left > 0 {
                self.turn(self.clock.at(settled))?;
            }
            if self.left == 0 {
                return Ok(());
            }
        }
    }

    /// Nothing more comes, but who was held up while he wrote a packet hides it, and those behind it, until he is done.
    fn wait_for_the_last(&mut self) -> Result<()> {
        for _ in 0..LAST_WAITS {
            if self.left == 0 || self.packets.rings.are_empty() {
                break;
            }
            thread::sleep(SHORT_PAUSE);
            self.drain(u64::MAX)?;
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<()> {
        let time = self.clock.at(boot_now());
        self.writer.end(Moment { time, counters: self.packets.processors.counters() })
    }

    /// Sleeps until there is a packet, or the next file has its turn; true if the thread was told to end.
    fn sleep(&self) -> Result<bool> {
        let Packets { rings, lanes, processors, .. } = &self.packets;
        processors.set_asleep(true);
        let mut stopped = false;
        for timeout in LAST_LOOKS {
            let processes = self.writer.processes_fd();
            let fds = [Some(self.stop.as_fd()), processes].into_iter().flatten();
            let fds = fds.chain(rings.each().iter().map(AsFd::as_fd));
            let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            stopped = wait(&mut fds, self.at_most(timeout))?;
            let has_news = processes.is_some() && fds[1].any() == Some(true);
            if stopped || has_news || !rings.are_empty() || !lanes.are_empty() {
                break;
            }
        }
        processors.set_asleep(false);
        Ok(stopped)
    }

    /// Goes on to the next file where its time has come though nothing passes.
    fn turn(&mut self, time: Duration) -> Result<()> {
        let counters = || self.packets.processors.counters();
        if time >= self.writer.due() && !self.writer.make_room(time, counters)? {
            self.left = 0;
        }
        Ok(())
    }

    /// The time until the next file has its turn, or what is given if that is shorter.
    fn at_most(&self, longest: Duration) -> Duration {
        let settled = self.clock.at(boot_now().saturating_sub(SETTLE));
        self.writer.due().saturating_sub(settled).min(longest)
    }

    /// Lets packets gather, until they are many or the next file has its turn; true if the thread was told to end.
    fn pause(&self, longest: Duration) -> Result<bool> {
        let time = self.at_most(longest).max(SHORT_PAUSE);
        let mut told = [EpollEvent::empty(); 1 + rings::COUNT];
        let time = EpollTimeout::try_from(time).unwrap_or(EpollTimeout::MAX);
        let count = waited(self.alarm.wait(&mut told, time))?;
        Ok(told[..count].iter().any(|event| event.data() == STOP))
    }

    /// Writes what was stamped up to `settled`; true if nothing was left waiting.
    fn drain(&mut self, settled: u64) -> Result<bool> {
        loop {
            let waiting = self.write_batch(settled)?;
            if waiting != Left::More || self.left == 0 {
                return Ok(waiting == Left::Nothing);
            }
        }
    }

    /// Writes a part of it, and gives its memory back.
    fn write_batch(&mut self, settled: u64) -> Result<Left> {
        let Self { packets: Packets { rings, lanes, processors, .. }, batch, writer, clock, left, .. } = self;
        batch.fill(rings, lanes, settled);
        // After the packets were found: what comes before them has been told by now.
        writer.take_processes(|boot| clock.past(boot));
        writer.take_keys();
        let mut write = |header: &RecordHeader, packet: &[u8]| {
            let time = clock.wall(header.time);
            if *left == 0 || !writer.make_room(time, || processors.counters())? {
                *left = 0;
                return Ok(false);
            }
            *left -= 1;
            writer.packet(time, header, packet)?;
            Ok(true)
        };
        let handed_out = batch.hand_out(rings, lanes, |header, packet| match write(header, packet) {
            Ok(true) => ControlFlow::Continue(()),
            ended => ControlFlow::Break(ended),
        });
        if let ControlFlow::Break(ended) = handed_out {
            ended?;
        }
        let waiting = batch.release(rings, lanes);
        if *left == 0 {
            // Before anybody can see that all are there.
            processors.end();
        }
        writer.flush()?;
        self.written.store(self.writer.packets(), Ordering::Relaxed);
        Ok(waiting)
    }
}

/// True if the first descriptor, the one to stop by, is ready.
fn wait(fds: &mut [PollFd<'_>], timeout: Duration) -> Result<bool> {
    let count = waited(ppoll(fds, Some(TimeSpec::from(timeout)), None))?;
    Ok(count > 0 && fds[0].any() == Some(true))
}

/// What waiting came to; where a signal ended it, nothing was ready.
fn waited<T: Default>(result: nix::Result<T>) -> Result<T> {
    match result {
        Err(nix::Error::EINTR) => Ok(T::default()),
        result => result.context("wait for", "packets"),
    }
}
