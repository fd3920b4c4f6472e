//! A summary of `--summary=json`, read back.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Done;

/// The object.
#[derive(Debug)]
pub struct Summary {
    value: Value,
}

/// A peer in it.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a>(&'a Value);

impl Summary {
    /// It is the last line of stderr.
    pub fn of(done: &Done) -> Result<Self> {
        let line = done.stderr.lines().last().context("nothing on stderr")?;
        let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        ensure!(value["schema"] == 1 && done.stderr.ends_with('\n'), "another schema: {line}");
        Ok(Self { value })
    }

    /// All peers.
    pub fn peers(&self) -> Vec<Peer<'_>> {
        self.value["peers"].as_array().into_iter().flatten().map(Peer).collect()
    }

    /// The only one with this protocol and port.
    pub fn peer(&self, protocol: &str, port: u16) -> Result<Peer<'_>> {
        self.only(|peer| peer["protocol"] == protocol && peer["port"] == port)
    }

    /// The only one with this protocol and address.
    pub fn peer_at(&self, protocol: &str, address: &str) -> Result<Peer<'_>> {
        self.only(|peer| peer["protocol"] == protocol && peer["address"] == address)
    }

    /// The only one of a process.
    pub fn peer_of(&self, process: &str) -> Result<Peer<'_>> {
        self.only(|peer| peer["process"] == process)
    }

    /// Those for whom there was no room.
    pub fn others(&self) -> Peer<'_> {
        Peer(&self.value["others"])
    }

    /// All packets.
    pub fn packets(&self) -> u64 {
        let rows = self.peers().into_iter().chain([self.others(), Peer(&self.value["link"])]);
        let numbers = rows.flat_map(|row| ["packets_sent", "packets_received"].map(|name| row.number(name)));
        numbers.map(Result::unwrap_or_default).sum()
    }

    fn only(&self, is_it: impl Fn(&Value) -> bool) -> Result<Peer<'_>> {
        let found: Vec<_> = self.peers().into_iter().filter(|peer| is_it(peer.0)).collect();
        ensure!(found.len() == 1, "{} such peers in {}", found.len(), self.value);
        Ok(found[0])
    }
}

impl<'a> Peer<'a> {
    /// A number.
    pub fn number(self, name: &str) -> Result<u64> {
        self.0[name].as_u64().with_context(|| format!("no number {name} in {}", self.0))
    }

    /// A text.
    pub fn text(self, name: &str) -> Result<&'a str> {
        self.0[name].as_str().with_context(|| format!("no text {name} in {}", self.0))
    }

    /// A list of numbers.
    pub fn numbers(self, name: &str) -> Result<Vec<u64>> {
        let list = self.0[name].as_array().with_context(|| format!("no list {name} in {}", self.0))?;
        list.iter().map(|number| number.as_u64().context("no number")).collect()
    }

    /// A list of texts.
    pub fn texts(self, name: &str) -> Result<Vec<&'a str>> {
        let list = self.0[name].as_array().with_context(|| format!("no list {name} in {}", self.0))?;
        list.iter().map(|text| text.as_str().context("no text")).collect()
    }

    /// Its names, each behind its source.
    pub fn names(self) -> Result<Vec<(&'a str, &'a str)>> {
        let list = self.0["names"].as_array().with_context(|| format!("no names in {}", self.0))?;
        list.iter().map(Peer).map(|name| Ok((name.text("source")?, name.text("name")?))).collect()
    }

    /// Connections that failed.
    pub fn failed(self) -> Result<u64> {
        let kinds = ["refused", "unanswered", "unreachable"];
        kinds.iter().map(|kind| self.number(&format!("connections_{kind}"))).sum()
    }
}
