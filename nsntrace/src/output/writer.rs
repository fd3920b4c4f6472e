//! The writing of a trace, in blocks of whole packets, into one file after the other.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use nsntrace_ebpf::{Counters, RecordHeader};

use super::{encoder::Encoder, pcapng::Moment, series::Series, write_all::write_all};
use crate::{
    capture::Watch,
    error::{Context, Result},
    ownership::processes::Processes,
    talk::{Summary, Talk},
    tls_keys::Keys,
};

/// What is gathered before it is written, in bytes.
const BLOCK: usize = 256 << 10;

/// What is held back at most, in bytes.
const MOST_HELD: usize = 8 << 20;

/// Writes packets to the files of a trace.
pub struct Writer {
    files: Series,
    encoder: Encoder,
    /// The secrets that go before the packets.
    keys: Option<Keys>,
    /// The processes that own the packets, and what tells of them.
    processes: Option<(Processes, Watch)>,
    /// What the packets tell.
    talk: Option<Talk>,
    /// What is not written yet, whole packets.
    block: Vec<u8>,
    /// How many.
    waiting: u64,
    /// Packets written, to all files.
    packets: u64,
    /// Bytes of the present file that belong to whole packets.
    length: u64,
    /// When the present file began.
    began: Moment,
}

impl Writer {
    /// A writer of what the encoder makes.
    pub fn new(files: Series, encoder: Encoder) -> Self {
        Self {
            files,
            encoder,
            keys: None,
            processes: None,
            talk: None,
            block: Vec::with_capacity(2 * BLOCK),
            waiting: 0,
            packets: 0,
            length: 0,
            began: Moment::default(),
        }
    }

    /// The same with secrets.
    pub fn with_keys(mut self, keys: Option<Keys>) -> Self {
        if keys.is_some() {
            self.files.keep_secret();
        }
        self.keys = keys;
        self
    }

    /// The same with the processes that own the packets, as far as something tells of them.
    pub fn with_processes(mut self, processes: Processes, watch: Option<Watch>) -> Self {
        self.processes = watch.map(|watch| (processes, watch));
        self
    }

    /// The same with somebody who looks at the packets.
    pub fn with_talk(mut self, talk: Option<Talk>) -> Self {
        self.talk = talk;
        self
    }

    /// Who talked to whom, if that was wanted.
    pub fn into_summary(self) -> Option<Summary> {
        self.talk?.into_summary()
    }

    /// Gives up what the calling thread may do beyond what the files take: from here on it is to be the one that writes them.
    ///
    /// # Errors
    /// Where the rights of the user that they are written for cannot be had, or others not be given up.
    pub fn confine(&self) -> Result<()> {
        self.files.confine()
    }

    /// Whether somebody may read the trace as it is written: it is no file proper, nor a device that takes all.
    pub fn is_live(&self) -> bool {
        self.files.file().is_live()
    }

    /// Whether it has more to read than packets: what happens to processes, or keys.
    pub fn watches(&self) -> bool {
        self.processes.is_some() || self.keys.is_some()
    }

    /// Begins the first file, for a capture that begins at that moment.
    ///
    /// # Errors
    /// Where the file does not take it.
    pub fn begin(&mut self, moment: Moment) -> Result<()> {
        self.files.names_mut().begin(moment.time);
        self.begin_file(moment)
    }

    /// When the next file has its turn, if no size brings it about before; since the epoch.
    pub fn due(&self) -> Duration {
        self.files.names().due()
    }

    /// Goes on to the next file if what passes at `time` belongs there. False if there is no next file: the trace is
    /// at its end.
    ///
    /// # Errors
    /// Where a file does not take it.
    pub fn make_room(&mut self, time: Duration, counters: impl FnOnce() -> Counters) -> Result<bool> {
        if !self.files.names().is_due(time, self.length + self.block.len() as u64) {
            return Ok(true);
        }
        if !self.files.names_mut().advance(time) {
            return Ok(false);
        }
        let moment = Moment { time, counters: counters() };
        self.end(moment)?;
        self.files.follow()?;
        self.begin_file(moment)?;
        Ok(true)
    }

    /// Takes the secrets that were logged by now, and puts them before the packets that they open. To be called before
    /// packets that were captured by now are added.
    pub fn take_keys(&mut self) {
        let Some(keys) = &mut self.keys else { return };
        let lines = keys.news();
        let place = keys.held_from().unwrap_or(self.block.len());
        let mut secrets = Vec::new();
        self.encoder.secrets(&mut secrets, &lines);
        keys.move_back(secrets.len());
        keys.let_go();
        self.block.splice(place..place, secrets);
    }

    /// Takes what has happened to processes by now. To be called before packets that were captured by now are added.
    pub fn take_processes(&mut self, wall: impl Fn(u64) -> Duration) {
        if let Some((processes, watch)) = &mut self.processes {
            watch.news(|news| {
                let time = wall(news.time);
                processes.take(news, time);
            });
        }
    }

    /// What is ready when something has happened to a process.
    pub fn processes_fd(&self) -> Option<BorrowedFd<'_>> {
        self.processes.as_ref().map(|(_, watch)| watch.as_fd())
    }

    /// Whether packets are held back until their secrets are there.
    pub fn is_holding(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.held_from().is_some())
    }

    /// Adds a packet that passed at `time` since the epoch.
    ///
    /// # Errors
    /// Where a block is full and the file does not take it.
    pub fn packet(&mut self, time: Duration, header: &RecordHeader, packet: &[u8]) -> Result<()> {
        if let Some(keys) = &mut self.keys {
            keys.see(header, packet, self.block.len());
        }
        let owner = self.processes.as_mut().and_then(|(processes, _)| processes.owner(header));
        // What may be held back has to be kept.
        let frame = self.encoder.frame(header, packet, self.keys.is_none());
        let place = self.encoder.packet(&mut self.block, time, header, owner.as_ref(), &frame);
        if let Some(talk) = &mut self.talk {
            talk.see(header, packet, owner);
            // Whoever reads it live knows them before the packets that go there.
            self.encoder.names(&mut self.block, &talk.news());
        }
        self.waiting += 1;
        match frame.apart() {
            Some(frame) => self.write_around(place, frame),
            None if self.block.len() >= BLOCK => self.flush(),
            None => Ok(()),
        }
    }

    /// Writes out what was gathered, with a frame in its place that was not copied there.
    fn write_around(&mut self, place: usize, frame: &[u8]) -> Result<()> {
        let (before, behind) = self.block.split_at(place);
        let (written, result) =
            write_all(self.files.file().file(), &mut [before, frame, behind].map(IoSlice::new));
        if result.is_err() {
            self.block.splice(place..place, frame.iter().copied());
            return self.wrote(written, result);
        }
        self.packets += self.waiting;
        self.length += written as u64;
        self.waiting = 0;
        self.block.clear();
        Ok(())
    }

    /// Ends the present file: nothing is missing in it then.
    ///
    /// # Errors
    /// Where the file does not take it.
    pub fn end(&mut self, moment: Moment) -> Result<()> {
        self.let_all_go();
        let mut lines = Vec::new();
        if let Some((processes, _)) = &self.processes {
            lines = processes.lines(self.began.time, moment.time);
        }
        let missed = self.missed();
        if missed > 0 {
            lines.push(format!("{missed} events of processes were lost: names may be wrong"));
        }
        self.encoder.end(&mut self.block, &self.began, &moment, lines);
        self.flush()
    }

    /// Events of processes that were lost: some that own packets have the names of others.
    pub fn missed(&self) -> u64 {
        self.processes.as_ref().map_or(0, |(_, watch)| watch.missed())
    }

    /// Packets written.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Writes out what was gathered and is not held back. A file that does not take all of it is cut after the last whole packet.
    ///
    /// # Errors
    /// What writing came to.
    pub fn flush(&mut self) -> Result<()> {
        if self.block.len() > MOST_HELD {
            self.let_all_go();
        }
        let held_from = self.keys.as_ref().and_then(Keys::held_from).unwrap_or(self.block.len());
        if held_from == 0 {
            return Ok(());
        }
        let pieces = &mut [IoSlice::new(&self.block[..held_from])];
        let (written, result) = write_all(self.files.file().file(), pieces);
        self.wrote(written, result)
    }

    /// So many bytes of what was gathered were written, and what it came to.
    fn wrote(&mut self, written: usize, result: io::Result<()>) -> Result<()> {
        let (packets, bytes) = match result {
            Ok(()) if written == self.block.len() => (self.waiting, written),
            _ => self.encoder.whole(&self.block[..written]),
        };
        self.packets += packets;
        self.length += bytes as u64;
        if result.is_ok() {
            self.forget(packets, written);
        } else {
            self.let_all_go();
            self.forget(self.waiting, self.block.len());
        }
        self.told(result)
    }

    /// Takes so many packets, and bytes, from the front of what was gathered.
    fn forget(&mut self, packets: u64, bytes: usize) {
        self.waiting -= packets;
        self.block.drain(..bytes);
        if let Some(keys) = &mut self.keys {
            keys.move_to_front(bytes);
        }
    }

    fn let_all_go(&mut self) {
        if let Some(keys) = &mut self.keys {
            keys.let_all_go();
        }
    }

    /// Empties the present file and writes what stands before the packets.
    fn begin_file(&mut self, moment: Moment) -> Result<()> {
        self.began = moment;
        self.length = 0;
        // Where it is somebody else's, what is in it is theirs.
        let result = self.files.begin();
        result.context("write to", self.files.file().name())?;
        if let Some((processes, _)) = &mut self.processes {
            processes.begin_file();
        }
        self.encoder.begin(&mut self.block);
        if let Some(keys) = &self.keys {
            self.encoder.secrets(&mut self.block, &keys.recent());
        }
        if let Some(talk) = &self.talk {
            self.encoder.names(&mut self.block, &talk.recent());
        }
        let (_, result) = write_all(self.files.file().file(), &mut [IoSlice::new(&self.block)]);
        self.told(result)?;
        self.length = self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    /// What writing to the present file came to. After a failure nothing is left there that is not whole.
    fn told(&self, result: io::Result<()>) -> Result<()> {
        if result.is_ok() {
            return Ok(());
        }
        let file = self.files.file();
        file.cut(self.length);
        result.context("write to", file.name())
    }
}

#[cfg(test)]
mod tests;
