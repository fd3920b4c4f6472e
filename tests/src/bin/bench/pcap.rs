//! A pcap as it comes out of a pipe, packet by packet.

use std::io::{self, Read};

use anyhow::{Result, ensure};

/// The link, network and transport headers of a datagram in IPv4, without options.
const HEADERS: usize = 42;

/// Where the source address is.
const SOURCE: std::ops::Range<usize> = 26..30;

/// A packet of a trace.
pub struct Packet {
    /// Nanoseconds since 1970.
    pub time: i64,
    /// What the trace has of it.
    pub data: Vec<u8>,
}

/// The reader of a trace with times in nanoseconds, little-endian.
pub struct Packets<R>(R);

impl<R: Read> Packets<R> {
    /// Reads the header.
    pub fn new(mut reader: R) -> Result<Self> {
        let mut header = [0; 24];
        reader.read_exact(&mut header)?;
        ensure!(header[..4] == [0x4d, 0x3c, 0xb2, 0xa1], "no pcap with nanoseconds: {header:02x?}");
        Ok(Self(reader))
    }

    /// Reads one packet; nothing at the end.
    pub fn next(&mut self) -> Result<Option<Packet>> {
        let mut header = [0; 16];
        match self.0.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let field =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let mut data = vec![0; field(8) as usize];
        self.0.read_exact(&mut data)?;
        Ok(Some(Packet { time: i64::from(field(0)) * 1_000_000_000 + i64::from(field(4)), data }))
    }
}

impl Packet {
    /// Who sent a packet of `drip`, and which it is.
    pub fn drop(&self) -> Option<([u8; 4], u64)> {
        let source = self.data.get(SOURCE)?.try_into().ok()?;
        let number = self.data.get(HEADERS..HEADERS + 8)?.try_into().ok()?;
        let is_udp = self.data.get(12..14) == Some(&[0x08, 0]) && self.data.get(23) == Some(&17);
        is_udp.then_some((source, u64::from_be_bytes(number)))
    }
}
