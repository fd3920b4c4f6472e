//! The rows of a summary.

use std::{collections::HashMap, net::IpAddr};

use serde::Serialize;

use super::Way;

/// Rows at most. Who comes later is counted with the others.
pub(super) const MOST: usize = 4096;

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

/// A number for each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// From the program.
    pub sent: u64,
    /// To the program.
    pub received: u64,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many packets.
    pub packets: Count,
    /// Their lengths on the wire, headers included.
    pub bytes: Count,
    /// The times of the first and the last one, in nanoseconds of `CLOCK_BOOTTIME`.
    pub times: Option<(u64, u64)>,
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

/// All rows.
#[derive(Debug)]
pub(super) struct Peers {
    /// The first one is that of the others.
    rows: Vec<Peer>,
    places: HashMap<(Option<String>, Endpoint), usize>,
}

impl Count {
    pub(super) fn of(&mut self, way: Way) -> &mut u64 {
        match way {
            Way::Sent => &mut self.sent,
            Way::Received => &mut self.received,
        }
    }

    /// The sum, way by way.
    fn with(self, other: Self) -> Self {
        Self { sent: self.sent + other.sent, received: self.received + other.received }
    }

    /// Both ways.
    pub fn total(&self) -> u64 {
        self.sent + self.received
    }
}

impl Traffic {
    pub(super) fn add(&mut self, way: Way, time: u64, bytes: u32) {
        *self.packets.of(way) += 1;
        *self.bytes.of(way) += u64::from(bytes);
        let (first, last) = self.times.unwrap_or((time, time));
        self.times = Some((first.min(time), last.max(time)));
    }

    /// The same with what is in another one.
    pub fn with(&self, other: &Self) -> Self {
        let times = [self.times, other.times].into_iter().flatten();
        Self {
            packets: self.packets.with(other.packets),
            bytes: self.bytes.with(other.bytes),
            times: times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))),
        }
    }

    /// From the first packet to the last.
    pub fn duration(&self) -> std::time::Duration {
        let (first, last) = self.times.unwrap_or_default();
        std::time::Duration::from_nanos(last - first)
    }
}

impl Peer {
    fn new(process: Option<String>, endpoint: Endpoint) -> Self {
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
        if let Err(place) = self.names.binary_search(&name)
            && self.names.len() < MOST_NAMES
        {
            self.names.insert(place, name);
        }
    }

    /// Adds a process's number.
    pub(super) fn pid(&mut self, pid: u32) {
        if self.pids.len() < MOST_PIDS && !self.pids.contains(&pid) {
            self.pids.push(pid);
        }
    }

    /// Takes what is in another row of the same endpoint.
    fn merge(&mut self, other: Self) {
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
        self.unanswered_names.extend(other.unanswered_names);
        self.unanswered_names.dedup();
        self.unanswered_names.truncate(MOST_NAMES);
    }

    pub(super) fn query_unanswered(&mut self, name: Option<&str>) {
        self.queries_unanswered += 1;
        if let Some(name) = name
            && self.unanswered_names.len() < MOST_NAMES
            && !self.unanswered_names.iter().any(|other| other == name)
        {
            self.unanswered_names.push(name.to_owned());
        }
    }
}

impl Default for Peers {
    fn default() -> Self {
        let address = IpAddr::from([0; 4]);
        let others = Endpoint { protocol: 0, address, port: None, role: Role::Client };
        Self { rows: vec![Peer::new(None, others)], places: HashMap::new() }
    }
}

impl Peers {
    /// The number of the row of a process and an endpoint. Where there is none left, that of the others.
    pub(super) fn of(&mut self, process: Option<&str>, endpoint: Endpoint) -> usize {
        let Self { rows, places } = self;
        // It is whatever somebody chose.
        let plain = |sign: char| if matches!(sign, ' '..='~') { sign } else { '?' };
        let known = process.filter(|name| !name.is_empty());
        let process: Option<String> = known.map(|name| name.chars().map(plain).collect());
        let key = (process, endpoint);
        match places.get(&key) {
            Some(number) => *number,
            None if rows.len() > MOST => 0,
            None => {
                rows.push(Peer::new(key.0.clone(), endpoint));
                places.insert(key, rows.len() - 1);
                rows.len() - 1
            }
        }
    }

    /// Where it is not known whose packets are, and but one process has talked to that endpoint, they are counted to it.
    pub(super) fn settle(&mut self) {
        let mut known: HashMap<Endpoint, Option<usize>> = HashMap::new();
        for (number, peer) in self.rows.iter().enumerate().filter(|(_, peer)| peer.process.is_some()) {
            known.entry(peer.endpoint).and_modify(|only| *only = None).or_insert(Some(number));
        }
        let mut of_nobody = Vec::new();
        for (number, peer) in self.rows.iter().enumerate().skip(1).filter(|(_, peer)| peer.process.is_none())
        {
            if let Some(Some(only)) = known.get(&peer.endpoint) {
                of_nobody.push((number, *only));
            }
        }
        for (number, only) in &of_nobody {
            let peer = self.rows[*number].clone();
            self.rows[*only].merge(peer);
        }
        for (number, _) in of_nobody.into_iter().rev() {
            self.rows.remove(number);
        }
        self.places.clear();
    }

    /// Whether a row is that of a process with another name than this.
    pub(super) fn is_anothers(&self, number: usize, name: &str) -> bool {
        number != 0 && self.rows[number].process.as_deref().unwrap_or_default() != name
    }

    /// The row of this number, which was given before.
    pub(super) fn at(&mut self, number: usize) -> &mut Peer {
        &mut self.rows[number]
    }

    pub(super) fn rows(&self) -> &[Peer] {
        &self.rows[1..]
    }

    pub(super) fn rows_mut(&mut self) -> &mut [Peer] {
        &mut self.rows[1..]
    }

    pub(super) fn others(&self) -> &Peer {
        &self.rows[0]
    }
}
