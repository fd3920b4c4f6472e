//! What the packets of a trace tell of who talked to whom: names of addresses, and the summary.
//!
//! All of it is found in user space, from packets that are on their way to the file. Memory is bounded, whatever comes:
//! tables forget what was not used for the longest time.

mod bounded;
mod lookups;
mod names;
pub mod report;
mod streams;
mod summary;

use std::net::{IpAddr, SocketAddr};

use lookups::{Lookups, Seen};
use names::Names;
use nsntrace_ebpf::RecordHeader;
use streams::{Ends, Streams};
pub use summary::Summary;
use summary::{Place, Source};

use crate::{
    dissect::{
        dns::{self, Message},
        http,
        packet::Packet,
        tls::ClientHello,
        transport::{Tcp, Transport},
    },
    ownership::Owner,
};

/// The port of name servers.
const DOMAIN: u16 = 53;

/// Bytes of a client's first words that are waited for, where they come in several segments.
const LONGEST_HEAD: usize = 16 << 10;

/// Looks at the packets of a trace.
#[derive(Debug, Default)]
pub struct Talk {
    names: Names,
    lookups: Lookups,
    streams: Streams,
    summary: Option<Summary>,
}

impl Talk {
    /// Learns names, and what a summary is made of if one is wanted.
    pub fn new(with_summary: bool) -> Self {
        Self { summary: with_summary.then(Summary::default), ..Self::default() }
    }

    /// Looks at a packet, and at its owner where that is known.
    pub fn see(&mut self, header: &RecordHeader, bytes: &[u8], owner: Option<Owner<'_>>) {
        let packet = Packet::read(header.linktype, bytes, header.wire_len);
        let place = match &mut self.summary {
            Some(summary) => summary.see(header, packet.as_ref(), owner, &self.names),
            None => Some(Place::default()),
        };
        // What belongs to no row says nothing here either.
        let (Some(packet), Some(place)) = (packet, place) else { return };
        let ends = packet.ends();
        let is_lookup = ends.0.port() == DOMAIN || ends.1.port() == DOMAIN;
        match packet.transport {
            Transport::Udp(udp) if is_lookup => self.message(ends, udp.payload, place),
            Transport::Tcp(tcp) if is_lookup && !tcp.payload.is_empty() => self.messages(ends, &tcp, place),
            Transport::Tcp(tcp) if place.is_from_client && !tcp.payload.is_empty() => {
                self.head(ends, &tcp, place)
            }
            _ => {}
        }
    }

    /// The names that were learned since the last call, with their addresses.
    pub fn news(&mut self) -> Vec<(IpAddr, String)> {
        self.names.news()
    }

    /// Names that were learned lately, for a file that begins.
    pub fn recent(&self) -> Vec<(IpAddr, String)> {
        self.names.recent()
    }

    /// The summary at the end, if one was wanted.
    pub fn into_summary(self) -> Option<Summary> {
        let Self { names, lookups, summary, .. } = self;
        let mut summary = summary?;
        for query in lookups.into_pending() {
            summary.unanswered(query.peer, query.name.as_deref());
        }
        summary.conclude(&names);
        Some(summary)
    }

    /// A message of the DNS.
    fn message(&mut self, ends: Ends, bytes: &[u8], place: Place) {
        let Some(message) = Message::read(bytes) else { return };
        let Self { lookups, names, summary, .. } = self;
        match lookups.see(ends, &message, place.peer) {
            Seen::Query { is_new, given_up } => {
                let Some(summary) = summary else { return };
                summary.query(place.peer, is_new);
                for query in given_up {
                    summary.unanswered(query.peer, query.name.as_deref());
                }
            }
            Seen::Answer(Some(name)) => {
                for address in message.addresses() {
                    names.learn(address, &name);
                }
            }
            Seen::Answer(None) | Seen::Unasked => {}
        }
    }

    /// Messages of the DNS in a stream, each behind its length.
    fn messages(&mut self, ends: Ends, tcp: &Tcp<'_>, place: Place) {
        let Some(bytes) = self.streams.join(ends, tcp) else { return };
        let mut rest = &bytes[..];
        while let Some(message) = dns::next_in_stream(&mut rest) {
            self.message(ends, message, place);
        }
        if !rest.is_empty() {
            let read = bytes.len() - rest.len();
            self.streams.keep(ends, tcp, bytes, read);
        }
    }

    /// What a client says first: whom it wants.
    fn head(&mut self, ends: Ends, tcp: &Tcp<'_>, place: Place) {
        let Some(summary) = &mut self.summary else { return };
        let Some(bytes) = self.streams.join(ends, tcp) else { return };
        let found = match ClientHello::read(&bytes) {
            Some(hello) => hello.server_name().map(|name| (name, Source::Sni)),
            None => http::host(&bytes).map(|name| (name, Source::Http)),
        };
        if let Some((name, source)) = found {
            summary.name(place.peer, name, source);
        } else if bytes.len() < LONGEST_HEAD && (ClientHello::is_begun(&bytes) || http::is_begun(&bytes)) {
            self.streams.keep(ends, tcp, bytes, 0);
        }
    }
}

/// An address and a port, the sender's or the receiver's.
type End = SocketAddr;
