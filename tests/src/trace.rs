//! The judge of a trace file: tshark and capinfos.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A trace file.
#[derive(Clone, Debug)]
pub struct Trace {
    path: PathBuf,
}

/// A packet as tshark reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Nanoseconds since 1970.
    pub time: i128,
    /// Bytes on the wire.
    pub len: u32,
    /// Bytes in the file.
    pub captured: u32,
}

/// What capinfos says about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The file type, such as `nsecpcap`.
    pub kind: String,
    /// The link type, such as `Ethernet`.
    pub link: String,
    /// The number of packets.
    pub packets: u64,
    /// Whether no packet is older than the one before it.
    pub in_order: bool,
}

impl Trace {
    /// The judge of this file, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its type, link type, size and order. Fails on a file that is cut in the middle of a packet.
    pub fn info(&self) -> Result<Info> {
        let path = self.path.to_str().context("the path is not text")?;
        let table = judge(Command::new("capinfos").args(["-T", "-r", "-M", "-t", "-E", "-c", "-o", path]))?;
        let fields: Vec<_> = table.trim_end().split('\t').collect();
        let [_, kind, link, packets, in_order] = fields[..] else { bail!("cannot read capinfos: {table:?}") };
        let packets = packets.parse().with_context(|| format!("cannot read capinfos: {table:?}"))?;
        Ok(Info { kind: kind.into(), link: link.into(), packets, in_order: in_order == "True" })
    }

    /// The number of packets.
    pub fn count(&self) -> Result<u64> {
        Ok(self.info()?.packets)
    }

    /// The number of packets that this display filter picks.
    pub fn count_of(&self, filter: &str) -> Result<usize> {
        Ok(self.fields(filter, &["frame.number"])?.len())
    }

    /// These fields of the packets that the display filter picks; an absent field is empty.
    pub fn fields(&self, filter: &str, names: &[&str]) -> Result<Vec<Vec<String>>> {
        let mut tshark = self.tshark();
        tshark.args(["-Y", filter, "-T", "fields"]);
        for name in names {
            tshark.args(["-e", name]);
        }
        let row = |line: &str| line.split('\t').map(String::from).collect();
        Ok(judge(&mut tshark)?.lines().map(row).collect())
    }

    /// The ports, each once, that end a connection: an end whose acknowledgement is late is sent again.
    pub fn ends(&self) -> Result<BTreeSet<String>> {
        Ok(self.fields("tcp.flags.fin == 1", &["tcp.srcport"])?.into_iter().flatten().collect())
    }

    /// Time and lengths of the packets that the display filter picks.
    pub fn packets(&self, filter: &str) -> Result<Vec<Packet>> {
        let rows = self.fields(filter, &["frame.time_epoch", "frame.len", "frame.cap_len"])?;
        rows.iter()
            .map(|row| match &row[..] {
                [time, len, captured] => {
                    Ok(Packet { time: nanoseconds(time)?, len: len.parse()?, captured: captured.parse()? })
                }
                _ => bail!("tshark gave {row:?}"),
            })
            .collect()
    }

    /// What was transferred by HTTP: the bodies by their file names.
    pub fn http_bodies(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let folder = tempfile::tempdir()?;
        let export = format!("http,{}", folder.path().display());
        judge(self.tshark().args(["-q", "--export-objects", &export]))?;
        let mut bodies = BTreeMap::new();
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            bodies.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
        }
        Ok(bodies)
    }

    fn tshark(&self) -> Command {
        let mut tshark = Command::new("tshark");
        // -n: no names are looked up. A busy lab's own packets overtake each other, from one processor to another.
        tshark.args(["-n", "-o", "tcp.reassemble_out_of_order:TRUE", "-r"]).arg(&self.path);
        tshark
    }
}

/// Runs a judge; a complaint of its about the file is an error.
fn judge(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} refuses the trace: {stderr}");
    Ok(String::from_utf8(output.stdout)?)
}

/// "1700000000.123456789" as nanoseconds.
fn nanoseconds(time: &str) -> Result<i128> {
    let (seconds, fraction) = time.split_once('.').with_context(|| format!("no time: {time:?}"))?;
    let fraction = format!("{fraction:0<9}");
    Ok(seconds.parse::<i128>()? * 1_000_000_000 + fraction.parse::<i128>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_nanoseconds() {
        assert_eq!(nanoseconds("1700000000.000000001").ok(), Some(1_700_000_000_000_000_001));
        assert_eq!(nanoseconds("1.5").ok(), Some(1_500_000_000));
    }
}
