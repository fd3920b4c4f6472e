//! The rows of a summary.

use std::{collections::HashMap, net::IpAddr};

use super::peer::{Endpoint, Peer, Role};

/// Rows at most. Who comes later is counted with the others.
pub(super) const MOST: usize = 4096;

/// All rows.
#[derive(Debug)]
pub(super) struct Peers {
    /// The first one is that of the others.
    rows: Vec<Peer>,
    places: HashMap<(Option<String>, Endpoint), usize>,
}

/// A sign of a process's name, which is whatever somebody chose.
fn plain(sign: char) -> char {
    if matches!(sign, ' '..='~') { sign } else { '?' }
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
        let mut gone = of_nobody.iter().map(|(number, _)| *number).peekable();
        let mut number = 0..;
        self.rows.retain(|_| gone.next_if_eq(&number.next().unwrap_or(usize::MAX)).is_none());
        self.places.clear();
    }

    /// Whether a row is that of a process with another name than this.
    pub(super) fn is_anothers(&self, number: usize, name: &str) -> bool {
        let own = self.rows[number].process.as_deref().unwrap_or_default();
        number != 0 && !name.chars().map(plain).eq(own.chars())
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
