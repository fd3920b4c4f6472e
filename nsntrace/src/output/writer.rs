//! The writing of a trace, in blocks of whole packets, into one file after the other.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nsntrace_ebpf::{Counters, RecordHeader};

use super::{encoder::Encoder, pcapng::Moment, series::Series};
use crate::error::{Context, Result};

/// What is gathered before it is written, in bytes.
const BLOCK: usize = 256 << 10;

/// Writes packets to the files of a trace.
pub struct Writer {
    files: Series,
    encoder: Encoder,
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
            block: Vec::with_capacity(2 * BLOCK),
            waiting: 0,
            packets: 0,
            length: 0,
            began: Moment::default(),
        }
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

    /// Adds a packet that passed at `time` since the epoch.
    ///
    /// # Errors
    /// Where a block is full and the file does not take it.
    pub fn packet(&mut self, time: Duration, header: &RecordHeader, packet: &[u8]) -> Result<()> {
        self.encoder.packet(&mut self.block, time, header, packet);
        self.waiting += 1;
        if self.block.len() >= BLOCK { self.flush() } else { Ok(()) }
    }

    /// Ends the present file: nothing is missing in it then.
    ///
    /// # Errors
    /// Where the file does not take it.
    pub fn end(&mut self, moment: Moment) -> Result<()> {
        self.encoder.end(&mut self.block, &self.began, &moment);
        self.flush()
    }

    /// Packets written.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Writes out what was gathered. A file that does not take all of it is cut after the last whole packet.
    ///
    /// # Errors
    /// What writing came to.
    pub fn flush(&mut self) -> Result<()> {
        let (written, result) = write_all(self.files.file().file(), &self.block);
        let (packets, bytes) = match result {
            Ok(()) => (self.waiting, written),
            Err(_) => self.encoder.whole(&self.block[..written]),
        };
        self.packets += packets;
        self.length += bytes as u64;
        self.waiting = 0;
        self.block.clear();
        self.told(result)
    }

    /// Empties the present file and writes what stands before the packets.
    fn begin_file(&mut self, moment: Moment) -> Result<()> {
        self.began = moment;
        self.length = 0;
        let result = self.files.begin();
        self.told(result)?;
        self.encoder.begin(&mut self.block);
        let (_, result) = write_all(self.files.file().file(), &self.block);
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

/// Writes as much as the file takes: how much, and why not all.
fn write_all(mut file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(some) => written += some,
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
    use nsntrace_ebpf::linktype;
    use pcap_file::{TsResolution, pcap::PcapReader, pcapng::PcapNgReader};

    use super::*;
    use crate::{
        config::{Format, Outfile, Rotation},
        output::section::{Interface, Section},
    };

    /// What a file of this format holds when a packet was written to it.
    fn written(format: Format, header: &RecordHeader, packet: &[u8]) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let outfile = Outfile::Path(path.clone());
        let files = Series::open(&outfile, Rotation::default(), None).expect("opened");
        let link = Interface { index: 2, link_type: linktype::EN10MB, ..Interface::default() };
        let section = Section {
            snaplen: 1000,
            filter: None,
            link_type: linktype::EN10MB,
            interfaces: vec![link],
            name_of: |_| None,
        };
        let mut writer = Writer::new(files, Encoder::new(format, section));
        writer.begin(Moment::default()).expect("begun");
        writer.packet(Duration::new(5, 6), header, packet).expect("taken");
        assert_eq!(writer.packets(), 0);
        writer.end(Moment::default()).expect("ended");
        assert_eq!(writer.packets(), 1);
        std::fs::read(path).expect("there")
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
}
