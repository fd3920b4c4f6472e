//! A second reader of pcapng besides tshark, from the text of draft-ietf-opsawg-pcapng and from nothing else. It is
//! strict: a block or an option that it does not know, or that is not as the draft has it, is an error.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// A file of one section.
#[derive(Clone, Debug, Default)]
pub struct Pcapng {
    /// Its comment.
    pub comment: String,
    /// The system that it was made on.
    pub system: String,
    /// The program that made it.
    pub application: String,
    /// The interfaces, by number.
    pub interfaces: Vec<Source>,
    /// The packets.
    pub packets: Vec<Passed>,
    /// Logs of TLS keys, each with the number of packets before it.
    pub secrets: Vec<(usize, String)>,
    /// Names of addresses, each with the number of packets before it.
    pub names: Vec<(usize, IpAddr, String)>,
    /// Statistics, each with its interface's number.
    pub statistics: Vec<(u32, Statistics)>,
    /// What the statistics say of each process.
    pub processes: Vec<String>,
}

/// An interface.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The link type's number.
    pub link_type: u16,
    /// Bytes that are kept of a packet.
    pub snaplen: u32,
    /// `if_name`
    pub name: Option<String>,
    /// `if_filter`, an expression.
    pub filter: Option<String>,
    /// Addresses as `address/mask` or `address/length`.
    pub addresses: Vec<String>,
    /// Its comments.
    pub comments: Vec<String>,
    /// The exponent of the stamps' unit.
    resolution: u8,
}

/// A packet that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The interface's number.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Bytes on the wire.
    pub wire_length: u32,
    /// What was kept of it.
    pub bytes: Vec<u8>,
    /// 1 in, 2 out.
    pub direction: u32,
    /// The number of the process that owns it, and its name, by the comment.
    pub owner: Option<(u32, String)>,
    /// The number by the option for it.
    pub process: Option<u32>,
}

/// An interface's statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Nanoseconds since 1970 at which the capture began and ended.
    pub from: u64,
    /// See [`Statistics::from`].
    pub to: u64,
    /// Packets that passed.
    pub received: Option<u64>,
    /// Packets that were lost.
    pub dropped: Option<u64>,
    /// Packets that the filter picked.
    pub accepted: Option<u64>,
    /// Packets in the file.
    pub delivered: u64,
}

impl Pcapng {
    /// Reads a file to its end.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path)?;
        Self::parse(&bytes).with_context(|| format!("{} is no such pcapng", path.display()))
    }

    /// Reads the bytes of a file.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut rest = Bytes(bytes);
        let mut file = Self::default();
        let (kind, body) = rest.block()?;
        ensure!(kind == 0x0a0d_0d0a, "the first block is {kind:#x}");
        file.section(body)?;
        while !rest.0.is_empty() {
            let at = bytes.len() - rest.0.len();
            let (kind, body) = rest.block().with_context(|| format!("at {at}"))?;
            let read = match kind {
                1 => file.interface(body),
                5 => file.statistics(body),
                6 => file.packet(body),
                4 => file.names(body),
                10 => file.secrets(body),
                _ => bail!("a block of the unknown type {kind:#x}"),
            };
            read.with_context(|| format!("in the block of type {kind} at {at}"))?;
        }
        Ok(file)
    }

    /// The same packets as a nanosecond pcap.
    pub fn to_pcap(&self, snaplen: u32) -> Result<Vec<u8>> {
        let link_type = self.interfaces.first().context("no interface")?.link_type;
        let header = [0xa1b2_3c4d, 4 << 16 | 2, 0, 0, snaplen, link_type.into()];
        let mut pcap = header.map(u32::to_le_bytes).concat();
        for packet in &self.packets {
            let (seconds, fraction) = (packet.time / 1_000_000_000, packet.time % 1_000_000_000);
            let record = [seconds, fraction, packet.bytes.len() as u64, packet.wire_length.into()];
            for word in record {
                pcap.extend(u32::try_from(word)?.to_le_bytes());
            }
            pcap.extend(&packet.bytes);
        }
        Ok(pcap)
    }

    fn names(&mut self, mut body: Bytes) -> Result<()> {
        loop {
            let (kind, length) = (body.u16()?, usize::from(body.u16()?));
            let value = body.padded(length)?;
            let (address, name) = match kind {
                0 => break,
                1 => {
                    let (address, name) = value.split_first_chunk::<4>().context("no address")?;
                    (IpAddr::from(*address), name)
                }
                2 => {
                    let (address, name) = value.split_first_chunk::<16>().context("no address")?;
                    (IpAddr::from(*address), name)
                }
                _ => bail!("a record of type {kind} among names"),
            };
            let name = name.strip_suffix(b"\0").context("the name has no end")?;
            self.names.push((self.packets.len(), address, text(name)?));
        }
        ensure!(body.0.is_empty(), "more than names");
        Ok(())
    }

    fn secrets(&mut self, mut body: Bytes) -> Result<()> {
        ensure!(body.u32()? == 0x544c_534b, "secrets that are no log of TLS keys");
        let length = body.u32()? as usize;
        let text = std::str::from_utf8(body.take(length)?)?.to_owned();
        ensure!(body.0.len() < 4 && body.0.iter().all(|byte| *byte == 0), "more than padding behind secrets");
        self.secrets.push((self.packets.len(), text));
        Ok(())
    }

    fn section(&mut self, mut body: Bytes) -> Result<()> {
        ensure!(body.u32()? == 0x1a2b_3c4d, "the byte order is another");
        ensure!((body.u16()?, body.u16()?) == (1, 0), "the version is not 1.0");
        ensure!(body.take(8)? == [0xff; 8], "the section's length is said, though it was not known");
        for (code, value) in body.options(&[1])? {
            let place = match code {
                1 => &mut self.comment,
                3 => &mut self.system,
                4 => &mut self.application,
                _ => bail!("option {code} in the section header"),
            };
            *place = text(value)?;
        }
        Ok(())
    }

    fn interface(&mut self, mut body: Bytes) -> Result<()> {
        let link_type = body.u16()?;
        ensure!(body.u16()? == 0, "reserved bytes are not zero");
        let mut source = Source { link_type, snaplen: body.u32()?, resolution: 6, ..Source::default() };
        for (code, value) in body.options(&[1, 4, 5])? {
            match (code, value) {
                (1, comment) => source.comments.push(text(comment)?),
                (2, name) => source.name = Some(text(name)?),
                (4, [a, b, c, d, mask @ ..]) => {
                    let mask = u32::from_be_bytes(mask.try_into().context("a mask has 4 bytes")?);
                    source.addresses.push(format!("{a}.{b}.{c}.{d}/{}", mask.leading_ones()));
                    ensure!(mask.count_ones() == mask.leading_ones(), "the mask {mask:#x}");
                }
                (5, [address @ .., length]) => {
                    let address: [u8; 16] = address.try_into().context("an address has 16 bytes")?;
                    source.addresses.push(format!("{}/{length}", std::net::Ipv6Addr::from(address)));
                }
                (9, [exponent]) => source.resolution = *exponent,
                (11, [0, filter @ ..]) => source.filter = Some(text(filter)?),
                _ => bail!("option {code} in an interface description, or a value of another form"),
            }
        }
        ensure!(source.resolution == 9, "stamps are not in nanoseconds");
        self.interfaces.push(source);
        Ok(())
    }

    fn packet(&mut self, mut body: Bytes) -> Result<()> {
        let interface = body.u32()?;
        let source = self.interfaces.get(interface as usize).context("an interface not described before")?;
        let time = body.stamp()?;
        let (length, wire_length) = (body.u32()?, body.u32()?);
        ensure!(length <= source.snaplen, "{length} bytes of a packet, and the limit is {}", source.snaplen);
        ensure!(length <= wire_length, "{length} bytes of a packet of {wire_length}");
        let bytes = body.padded(length as usize)?.to_vec();
        let options: BTreeMap<_, _> = body.options(&[])?.into_iter().collect();
        ensure!(
            options.keys().all(|code| matches!(code, 1 | 2 | 8)),
            "options {:?} of a packet",
            options.keys()
        );
        let flags = *options.get(&2).context("a packet without flags")?;
        let owner = options.get(&1).map(|comment| owner(text(comment)?)).transpose()?;
        let process = options.get(&8).map(|option| process(option)).transpose()?;
        if process.is_some() {
            ensure!(process == owner.as_ref().map(|(pid, _)| *pid), "process {process:?} of {owner:?}");
        }
        let direction = u32::from_le_bytes(flags.try_into().context("flags have 4 bytes")?);
        ensure!(matches!(direction, 1 | 2), "flags {direction:#x}");
        self.packets.push(Passed { interface, time, wire_length, bytes, direction, owner, process });
        Ok(())
    }

    fn statistics(&mut self, mut body: Bytes) -> Result<()> {
        let interface = body.u32()?;
        ensure!((interface as usize) < self.interfaces.len(), "statistics of an interface not described");
        let time = body.stamp()?;
        let mut counts = BTreeMap::new();
        let mut times = BTreeMap::new();
        for (code, value) in body.options(&[1])? {
            let mut value = Bytes(value);
            match code {
                1 => {
                    let comment = text(value.0)?;
                    self.processes.extend(Some(comment).filter(|comment| comment.starts_with("process ")));
                }
                2 | 3 => drop(times.insert(code, value.stamp()?)),
                4..=6 | 8 => drop(counts.insert(code, value.u64()?)),
                _ => bail!("option {code} in statistics"),
            }
            ensure!(code == 1 || value.0.is_empty(), "option {code} is too long");
        }
        let time_of = |code| times.get(&code).copied().with_context(|| format!("no option {code}"));
        let count = |code| counts.get(&code).copied();
        let statistics = Statistics {
            from: time_of(2)?,
            to: time_of(3)?,
            received: count(4),
            dropped: count(5),
            accepted: count(6),
            delivered: count(8).context("no count of packets in the file")?,
        };
        ensure!(statistics.from <= statistics.to && statistics.to == time, "times {statistics:?}");
        self.statistics.push((interface, statistics));
        Ok(())
    }
}

/// A process's number. That of the thread is not known.
fn process(option: &[u8]) -> Result<u32> {
    let mut option = Bytes(option);
    let (process, thread) = (option.u32()?, option.u32()?);
    ensure!(thread == 0 && option.0.is_empty(), "thread {thread}");
    Ok(process)
}

/// An owner's number and its name, which may be missing.
fn owner(comment: String) -> Result<(u32, String)> {
    let owner = comment.strip_prefix("pid ").with_context(|| format!("the comment {comment:?}"))?;
    let (pid, name) = owner.split_once(' ').unwrap_or((owner, ""));
    Ok((pid.parse()?, name.to_owned()))
}

fn text(bytes: &[u8]) -> Result<String> {
    ensure!(!bytes.contains(&0), "a text with a zero in it");
    Ok(String::from_utf8(bytes.to_vec())?)
}

/// What is left to be read.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    /// So many bytes, and zeros up to a multiple of 4.
    fn padded(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.take(count)?;
        let padding = self.take(count.next_multiple_of(4) - count)?;
        ensure!(padding.iter().all(|byte| *byte == 0), "padding is not zero");
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.take(2)?.try_into()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into()?))
    }

    /// A time: the upper half, then the lower.
    fn stamp(&mut self) -> Result<u64> {
        Ok(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }

    /// A block's type and what is in it.
    fn block(&mut self) -> Result<(u32, Bytes<'a>)> {
        let (kind, total) = (self.u32()?, self.u32()?);
        ensure!(total >= 12 && total.is_multiple_of(4), "a block of {total} bytes");
        let body = self.take(total as usize - 12)?;
        ensure!(self.u32()? == total, "a block's two lengths differ");
        Ok((kind, Bytes(body)))
    }

    /// All options, which end the block. Only those in `many` may be there more than once.
    fn options(&mut self, many: &[u16]) -> Result<Vec<(u16, &'a [u8])>> {
        let mut options: Vec<(u16, &[u8])> = Vec::new();
        while !self.0.is_empty() {
            let (code, length) = (self.u16()?, self.u16()?);
            if code == 0 {
                ensure!(length == 0 && self.0.is_empty(), "bytes behind the end of the options");
                return Ok(options);
            }
            let is_there = options.iter().any(|(other, _)| *other == code);
            ensure!(!is_there || many.contains(&code), "option {code} twice");
            options.push((code, self.padded(length.into())?));
        }
        ensure!(options.is_empty(), "the options have no end");
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 12).expect("short").to_le_bytes();
        [&kind.to_le_bytes()[..], &length, body, &length].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn file() -> Vec<u8> {
        let section = [words(&[0x1a2b_3c4d, 1]), vec![0xff; 8]].concat();
        let interface = words(&[1, 100, 1 << 16 | 9, 9, 0]);
        let packet = words(&[0, 1, 2, 3, 60, 0x0003_0201, 4 << 16 | 2, 1, 0]);
        [block(0x0a0d_0d0a, &section), block(1, &interface), block(6, &packet)].concat()
    }

    #[test]
    fn a_packet_is_read() {
        let read = Pcapng::parse(&file()).expect("valid");
        let expected = Passed {
            interface: 0,
            time: 1 << 32 | 2,
            wire_length: 60,
            bytes: vec![1, 2, 3],
            direction: 1,
            owner: None,
            process: None,
        };
        assert_eq!(read.packets, [expected]);
    }

    #[test]
    fn whatever_is_wrong_is_refused() {
        let good = file();
        assert!(Pcapng::parse(&[&good[..], &block(7, &[])].concat()).is_err(), "an unknown block");
        for end in 1..good.len() {
            let is_boundary = [28, 60].contains(&end);
            assert_eq!(Pcapng::parse(&good[..end]).is_ok(), is_boundary, "cut at {end}");
        }
    }
}
