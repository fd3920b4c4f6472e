//! The writing of a trace, in blocks of whole packets, into one file after the other.

use std::{
    fs::File,
    io::{self, IoSlice, Write},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nsntrace_ebpf::{Counters, RecordHeader};

use super::{encoder::Encoder, pcapng::Moment, series::Series};
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
        let frame = self.encoder.frame(header, packet);
        // What may be held back has to be kept.
        let frame = if self.keys.is_none() { frame.or_apart() } else { frame };
        let place = self.encoder.packet(&mut self.block, time, header, owner, &frame);
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
        let lines =
            self.processes.as_ref().map(|(processes, _)| processes.lines(self.began.time, moment.time));
        self.encoder.end(&mut self.block, &self.began, &moment, lines.unwrap_or_default());
        self.flush()
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
        let result = self.files.begin();
        self.told(result)?;
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

/// Writes as much of these pieces as the file takes: how much, and why not all.
fn write_all(mut file: &File, mut pieces: &mut [IoSlice<'_>]) -> (usize, io::Result<()>) {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut written = 0;
    while written < length {
        match file.write_vectored(pieces) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(some) => {
                written += some;
                IoSlice::advance_slices(&mut pieces, some);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else who has the pipe does not want to wait for it; we do.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(file),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

fn wait_for_room(file: &File) {
    // What is wrong with it, the next write tells.
    let _ = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nsntrace_ebpf::linktype;
    use pcap_file::{TsResolution, pcap::PcapReader, pcapng::PcapNgReader};
    use tempfile::TempDir;

    use super::*;
    use crate::{
        config::{Format, Outfile, Rotation},
        output::section::{Interface, Section},
    };

    /// A writer of a file in this format, where that is, and its folder.
    fn writer(format: Format) -> (PathBuf, Writer, TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let files = Series::open(&Outfile::Path(path.clone()), Rotation::default(), None).expect("opened");
        let link = Interface { index: 2, link_type: linktype::EN10MB, ..Interface::default() };
        let section = Section {
            snaplen: 1 << 18,
            filter: None,
            link_type: linktype::EN10MB,
            interfaces: vec![link],
            name_of: |_| None,
        };
        (path, Writer::new(files, Encoder::new(format, section)), folder)
    }

    /// The header of a packet of so many bytes.
    fn of_bytes(length: usize) -> RecordHeader {
        let length = u32::try_from(length).expect("short");
        RecordHeader {
            wire_len: length,
            cap_len: length,
            linktype: linktype::EN10MB,
            ifindex: 2,
            ..RecordHeader::default()
        }
    }

    /// What a file of this format holds when a packet was written to it.
    fn written(format: Format, header: &RecordHeader, packet: &[u8]) -> Vec<u8> {
        let (path, mut writer, _folder) = writer(format);
        writer.begin(Moment::default()).expect("begun");
        writer.packet(Duration::new(5, 6), header, packet).expect("taken");
        assert_eq!(writer.packets(), 0);
        writer.end(Moment::default()).expect("ended");
        assert_eq!(writer.packets(), 1);
        std::fs::read(path).expect("there")
    }

    #[test]
    fn a_large_packet_stands_between_its_neighbours() {
        let large: Vec<u8> = (0..70_001_u32).map(|n| n.to_le_bytes()[0]).collect();
        for format in [Format::Pcap, Format::Pcapng] {
            let (path, mut writer, _folder) = writer(format);
            writer.begin(Moment::default()).expect("begun");
            for packet in [&large[..20], &large, &large[..70_000], &large[..21]] {
                writer.packet(Duration::new(5, 6), &of_bytes(packet.len()), packet).expect("taken");
            }
            assert_eq!(writer.packets(), 3);
            writer.end(Moment::default()).expect("ended");
            assert_eq!(writer.packets(), 4);
            let bytes = std::fs::read(path).expect("there");
            let packets: Vec<Vec<u8>> = match format {
                Format::Pcap => {
                    let mut reader = PcapReader::new(&bytes[..]).expect("a pcap");
                    std::iter::from_fn(|| Some(reader.next_packet()?.expect("whole").data.into_owned()))
                        .collect()
                }
                Format::Pcapng => {
                    let mut reader = PcapNgReader::new(&bytes[..]).expect("a pcapng");
                    let mut packets = Vec::new();
                    while let Some(block) = reader.next_block() {
                        let block = block.expect("whole").into_owned();
                        packets.extend(block.into_enhanced_packet().map(|packet| packet.data.into_owned()));
                    }
                    packets
                }
            };
            assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [20, 70_001, 70_000, 21]);
            assert!(packets.iter().all(|packet| large.starts_with(packet)));
        }
    }

    #[test]
    fn both_formats_hold_the_packet_as_it_was() {
        let header = RecordHeader {
            wire_len: 60,
            cap_len: 20,
            vlan_proto: 0x8100,
            vlan_tci: 5,
            linktype: linktype::EN10MB,
            ifindex: 2,
            ..RecordHeader::default()
        };
        let tagged = [&[7; 12][..], &[0x81, 0, 0, 5], &[7; 8]].concat();

        let bytes = written(Format::Pcap, &header, &[7; 20]);
        let mut reader = PcapReader::new(&bytes[..]).expect("a pcap");
        assert_eq!(reader.header().ts_resolution, TsResolution::NanoSecond);
        let packet = reader.next_packet().expect("one").expect("whole");
        assert_eq!((packet.timestamp, packet.orig_len), (Duration::new(5, 6), 64));
        assert_eq!(packet.data[..], tagged);
        assert!(reader.next_packet().is_none());

        let bytes = written(Format::Pcapng, &header, &[7; 20]);
        let mut reader = PcapNgReader::new(&bytes[..]).expect("a pcapng");
        let mut next = || reader.next_block().expect("one").expect("whole").into_owned();
        next().into_interface_description().expect("a description");
        let packet = next().into_enhanced_packet().expect("a packet");
        assert_eq!((packet.timestamp, packet.original_len), (Duration::new(5, 6), 64));
        assert_eq!(packet.data[..], tagged);
        next().into_interface_statistics().expect("statistics");
        assert!(reader.next_block().is_none());
    }

    /// The types of blocks in this file, but for the head's.
    fn blocks(path: &std::path::Path) -> Vec<u32> {
        let bytes = std::fs::read(path).expect("there");
        let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("a word"));
        let mut at = 0;
        let mut kinds = Vec::new();
        while at < bytes.len() {
            kinds.push(word(at));
            at += word(at + 4) as usize;
        }
        kinds[2..].to_vec()
    }

    #[test]
    fn an_answer_waits_for_its_secrets() {
        use std::io::Write;

        use crate::{
            dissect::frames::{Flag, client_hello, tcp},
            tls_keys::KeyFile,
        };

        const SECRETS: u32 = 10;
        const PACKET: u32 = 6;
        let (path, writer, _folder) = writer(Format::Pcapng);
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut logged = File::options().append(true).open(log.path()).expect("opened");
        let keys = Keys::new(KeyFile::new(log.into_file()), None);
        let mut writer = writer.with_keys(Some(keys));
        writer.begin(Moment::default()).expect("begun");

        let (client, server) = ("10.0.0.1:1000", "10.0.0.2:443");
        let add = |writer: &mut Writer, frame: Vec<u8>| {
            writer.packet(Duration::new(5, 6), &of_bytes(frame.len()), &frame).expect("taken");
        };
        writer.take_keys();
        add(&mut writer, tcp(client, server, Flag::Ack, 1, &client_hello([0xab; 32], "host")));
        add(&mut writer, tcp(server, client, Flag::Ack, 1, b"answer"));
        add(&mut writer, tcp("10.0.0.1:1001", server, Flag::Syn, 1, b""));
        writer.flush().expect("written");
        assert!(writer.is_holding());
        assert_eq!((blocks(&path), writer.packets()), (vec![PACKET], 1));

        writeln!(logged, "CLIENT_RANDOM {} {}", "ab".repeat(32), "cd".repeat(48)).expect("logged");
        writer.take_keys();
        add(&mut writer, tcp(client, server, Flag::Ack, 1, b"more"));
        writer.flush().expect("written");
        assert!(!writer.is_holding());
        assert_eq!((blocks(&path), writer.packets()), (vec![PACKET, SECRETS, PACKET, PACKET, PACKET], 4));
        writer.end(Moment::default()).expect("ended");
        assert_eq!(writer.packets(), 4);
    }
}
