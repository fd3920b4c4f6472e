//! A row of a summary: who of the program's processes talked with whom, and how it went.

use std::net::IpAddr;

use serde::Serialize;

use super::traffic::{Count, Traffic};

/// Names of a row at most, and names of unanswered queries.
const MOST_NAMES: usize = 8;

/// The longest name, in signs: that of a host in the DNS.
const LONGEST_NAME: usize = 255;

/// Processes of a row whose numbers are kept, at most.
const MOST_PIDS: usize = 8;

/// Somebody who is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The protocol's number.
    pub protocol: u8,
    /// The other end.
    pub address: IpAddr,
    /// The port of who is asked, if the protocol has ports.
    pub port: Option<u16>,
    /// Who asks.
    pub role: Role,
}

/// Who asks whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The program asks.
    Client,
    /// The program is asked.
    Server,
}

/// Where a name is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The program told it in the first message of TLS.
    Sni,
    /// The program told it in a request of HTTP.
    Http,
    /// The program asked for it, and the answer had the address.
    Dns,
}

/// A name of a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Name {
    /// Where it is from. The first says most.
    pub source: Source,
    /// The name, in visible signs of ASCII and lower case.
    pub name: String,
}

/// Who of the program's processes talked with whom.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The name of the process, or of several with this name, in visible signs of ASCII; none where it is not known.
    pub process: Option<String>,
    /// Numbers of such processes, a few.
    pub pids: Vec<u32>,
    /// With whom.
    pub endpoint: Endpoint,
    /// What the other end is called: what says most first, each once, a few.
    pub names: Vec<Name>,
    /// What was exchanged.
    pub traffic: Traffic,
    /// Connections, or pairs of ports; where there are none, 1.
    pub connections: u64,
    /// Connections that were answered by a RST,
    pub refused: u64,
    /// by nobody,
    pub unanswered: u64,
    /// or by ICMP, that the other end is not to be reached.
    pub unreachable: u64,
    /// Segments of TCP that came once more.
    pub retransmissions: Count,
    /// RSTs in connections.
    pub resets: Count,
    /// Queries, where it is a name server.
    pub queries: u64,
    /// Those without an answer.
    pub queries_unanswered: u64,
    /// Some of their names.
    pub unanswered_names: Vec<String>,
}

impl Peer {
    pub(super) fn new(process: Option<String>, endpoint: Endpoint) -> Self {
        Self {
            process,
            pids: Vec::new(),
            endpoint,
            names: Vec::new(),
            traffic: Traffic::default(),
            connections: 0,
            refused: 0,
            unanswered: 0,
            unreachable: 0,
            retransmissions: Count::default(),
            resets: Count::default(),
            queries: 0,
            queries_unanswered: 0,
            unanswered_names: Vec::new(),
        }
    }

    /// Adds a name, in its place. It is whatever somebody chose; an address is none.
    pub(super) fn name(&mut self, name: &str, source: Source) {
        if name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return;
        }
        let plain = |sign: char| if sign.is_ascii_graphic() { sign.to_ascii_lowercase() } else { '?' };
        let name = Name { source, name: name.chars().take(LONGEST_NAME).map(plain).collect() };
        if let Err(place) = self.names.binary_search(&name) {
            self.names.insert(place, name);
            self.names.truncate(MOST_NAMES);
        }
    }

    /// Adds a process's number.
    pub(super) fn pid(&mut self, pid: u32) {
        if self.pids.len() < MOST_PIDS && !self.pids.contains(&pid) {
            self.pids.push(pid);
        }
    }

    /// Takes what is in another row of the same endpoint.
    pub(super) fn merge(&mut self, other: Self) {
        self.traffic = self.traffic.with(&other.traffic);
        self.connections += other.connections;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.unreachable += other.unreachable;
        self.retransmissions = self.retransmissions.with(other.retransmissions);
        self.resets = self.resets.with(other.resets);
        self.queries += other.queries;
        self.queries_unanswered += other.queries_unanswered;
        for name in other.names {
            self.name(&name.name, name.source);
        }
        for name in &other.unanswered_names {
            self.unanswered_name(name);
        }
    }

    /// Counts a query that nobody answered, and keeps its name.
    pub(super) fn query_unanswered(&mut self, name: Option<&str>) {
        self.queries_unanswered += 1;
        if let Some(name) = name {
            self.unanswered_name(name);
        }
    }

    fn unanswered_name(&mut self, name: &str) {
        if self.unanswered_names.len() < MOST_NAMES
            && !self.unanswered_names.iter().any(|other| other == name)
        {
            self.unanswered_names.push(name.to_owned());
        }
    }
}
