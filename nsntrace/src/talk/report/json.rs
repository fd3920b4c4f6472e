//! The summary as JSON. README describes it; what is there keeps its name and meaning, and more may come.

use std::net::IpAddr;

use nsntrace_ebpf::Counters;
use serde::Serialize;

use super::protocol_name;
use crate::talk::summary::{Name, Peer, Role, Summary, Traffic};

/// The version of what follows. It is raised when something changes its meaning.
const SCHEMA: u32 = 1;

/// The object.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// See [`SCHEMA`].
    schema: u32,
    /// Seconds from the first packet to the last.
    duration: f64,
    /// Packets that passed and are not in here, because no buffer had room,
    packets_dropped: u64,
    /// or because the filter did not want them.
    packets_filtered: u64,
    /// With whom the program talked, the one with most bytes first.
    peers: Vec<Row<'a>>,
    /// All for whom there was no row left.
    others: Numbers,
    /// What belongs to nobody: ARP, neighbour discovery.
    link: Exchanged,
}

/// A peer.
#[derive(Debug, Serialize)]
struct Row<'a> {
    /// The name of the program's process; null where that is not known. Several with this name are one.
    process: Option<&'a str>,
    /// Numbers of such processes, a few.
    pids: &'a [u32],
    /// `tcp`, `udp`, `icmp`, `icmpv6`, …, or `ip-` and the protocol's number.
    protocol: String,
    /// What the program is: `client` or `server`.
    role: Role,
    /// The peer's address.
    address: IpAddr,
    /// The peer's port; where the program is the server, its own; null where the protocol has none.
    port: Option<u16>,
    /// The name that says most; null if none is known.
    name: Option<&'a str>,
    /// All names, a few, and their sources: `sni`, `http`, `dns`.
    names: &'a [Name],
    #[serde(flatten)]
    numbers: Numbers,
    /// Names of queries that were never answered, a few.
    unanswered_names: &'a [String],
}

/// What went either way, and for how long.
#[derive(Debug, Serialize)]
struct Exchanged {
    packets_sent: u64,
    packets_received: u64,
    /// Lengths on the wire, with all headers.
    bytes_sent: u64,
    bytes_received: u64,
    /// Seconds from the first packet to the last.
    duration: f64,
}

/// Numbers of a peer. Each way is seen from the program.
#[derive(Debug, Serialize)]
struct Numbers {
    #[serde(flatten)]
    exchanged: Exchanged,
    /// Connections, or pairs of ports.
    connections: u64,
    /// Those that a RST answered, nobody, or an ICMP error.
    connections_refused: u64,
    connections_unanswered: u64,
    connections_unreachable: u64,
    retransmissions_sent: u64,
    retransmissions_received: u64,
    resets_sent: u64,
    resets_received: u64,
    /// Queries to a name server.
    queries: u64,
    queries_unanswered: u64,
}

/// The object, on a line.
pub(super) fn text(summary: &Summary, counters: &Counters) -> String {
    let peers = summary.peers();
    let all = peers.iter().map(|peer| &peer.traffic).chain([&summary.others().traffic, summary.link()]);
    let report = Report {
        schema: SCHEMA,
        duration: all.fold(Traffic::default(), |sum, traffic| sum.with(traffic)).duration().as_secs_f64(),
        packets_dropped: counters.dropped,
        packets_filtered: counters.filtered,
        peers: peers.iter().copied().map(Row::from).collect(),
        others: summary.others().into(),
        link: summary.link().into(),
    };
    // Nothing in it can fail: it has no keys but names, and numbers that are some.
    serde_json::to_string(&report).unwrap_or_default() + "\n"
}

impl<'a> From<&'a Peer> for Row<'a> {
    fn from(peer: &'a Peer) -> Self {
        Self {
            process: peer.process.as_deref(),
            pids: &peer.pids,
            protocol: protocol_name(peer.endpoint.protocol),
            role: peer.endpoint.role,
            address: peer.endpoint.address,
            port: peer.endpoint.port,
            name: peer.names.first().map(|name| &name.name[..]),
            names: &peer.names,
            numbers: peer.into(),
            unanswered_names: &peer.unanswered_names,
        }
    }
}

impl From<&Peer> for Numbers {
    fn from(peer: &Peer) -> Self {
        Self {
            exchanged: (&peer.traffic).into(),
            connections: peer.connections,
            connections_refused: peer.refused,
            connections_unanswered: peer.unanswered,
            connections_unreachable: peer.unreachable,
            retransmissions_sent: peer.retransmissions.sent,
            retransmissions_received: peer.retransmissions.received,
            resets_sent: peer.resets.sent,
            resets_received: peer.resets.received,
            queries: peer.queries,
            queries_unanswered: peer.queries_unanswered,
        }
    }
}

impl From<&Traffic> for Exchanged {
    fn from(traffic: &Traffic) -> Self {
        Self {
            packets_sent: traffic.packets.sent,
            packets_received: traffic.packets.received,
            bytes_sent: traffic.bytes.sent,
            bytes_received: traffic.bytes.received,
            duration: traffic.duration().as_secs_f64(),
        }
    }
}
