//! From packets to the bytes of a trace.

use std::{net::IpAddr, time::Duration};

use nsntrace_ebpf::RecordHeader;

use super::{
    frame::Frame,
    pcap,
    pcapng::{Moment, Pcapng},
    section::Section,
};
use crate::{config::Format, ownership::Owner};

/// Appends packets to a block of memory, in one format or the other.
#[derive(Debug)]
pub struct Encoder {
    snaplen: u32,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Pcap { link_type: u16 },
    Pcapng(Pcapng),
}

impl Encoder {
    /// An encoder of packets from these interfaces. A pcap has the section's link type and says nothing of them.
    pub fn new(format: Format, section: Section) -> Self {
        let snaplen = section.snaplen;
        let kind = match format {
            Format::Pcap => Kind::Pcap { link_type: section.link_type },
            Format::Pcapng => Kind::Pcapng(Pcapng::new(section)),
        };
        Self { snaplen, kind }
    }

    /// A record's packet as it is added; if it may, it stays [apart](Frame::apart).
    #[inline]
    pub(super) fn frame<'a>(&self, header: &RecordHeader, packet: &'a [u8], may_stay: bool) -> Frame<'a> {
        Frame::new(header, packet, self.snaplen, may_stay)
    }

    /// Begins a file.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        match &mut self.kind {
            Kind::Pcap { link_type } => pcap::begin(out, self.snaplen, *link_type),
            Kind::Pcapng(pcapng) => pcapng.begin(out),
        }
    }

    /// Adds a packet that passed at `time` since the epoch, and its owner where that is known. Returns the place of its frame.
    pub(super) fn packet(
        &mut self,
        out: &mut Vec<u8>,
        time: Duration,
        header: &RecordHeader,
        owner: Option<&Owner<'_>>,
        frame: &Frame<'_>,
    ) -> usize {
        match &mut self.kind {
            Kind::Pcap { .. } => pcap::packet(out, time, frame),
            Kind::Pcapng(pcapng) => pcapng.packet(out, time, header, owner, frame),
        }
    }

    /// The same from a record, whichever way a writer takes for it.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn record(
        &mut self,
        out: &mut Vec<u8>,
        time: Duration,
        header: &RecordHeader,
        owner: Option<Owner<'_>>,
        packet: &[u8],
    ) {
        let frame = self.frame(header, packet, true);
        let place = self.packet(out, time, header, owner.as_ref(), &frame);
        out.splice(place..place, frame.apart().unwrap_or_default().iter().copied());
    }

    /// Adds lines of a key log, which open packets that come after them. A pcap has no place for them.
    pub(super) fn secrets(&self, out: &mut Vec<u8>, lines: &str) {
        match &self.kind {
            Kind::Pcap { .. } => {}
            Kind::Pcapng(_) => Pcapng::secrets(out, lines),
        }
    }

    /// Adds names of addresses. A pcap has no place for them.
    pub(crate) fn names(&self, out: &mut Vec<u8>, names: &[(IpAddr, String)]) {
        match &self.kind {
            Kind::Pcap { .. } => {}
            Kind::Pcapng(_) => Pcapng::names(out, names),
        }
    }

    /// Ends a file that holds what passed between two moments, with these lines of its processes.
    pub(super) fn end(&mut self, out: &mut Vec<u8>, from: &Moment, to: &Moment, processes: Vec<String>) {
        match &mut self.kind {
            Kind::Pcap { .. } => {}
            Kind::Pcapng(pcapng) => pcapng.end(out, from, to, processes),
        }
    }

    /// How many whole packets stand in what follows on the beginning of a file, and up to where all of it is whole.
    pub(crate) fn whole(&self, bytes: &[u8]) -> (u64, usize) {
        match &self.kind {
            Kind::Pcap { .. } => pcap::whole(bytes),
            Kind::Pcapng(_) => Pcapng::whole(bytes),
        }
    }
}
