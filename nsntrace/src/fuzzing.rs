//! What holds of each reader, whatever it reads: for the targets in fuzz/, for property tests, and for a test with all that the
//! targets have found worth keeping.

use std::{net::IpAddr, time::Duration};

use nsntrace_ebpf::{Counters, MAX_SNAPLEN, RecordHeader, linktype};

use crate::{
    config::Format,
    dissect::{
        dns::{self, Message},
        http,
        packet::Packet,
        tls::ClientHello,
    },
    filter::{Hook, classic::Instruction, sound},
    host::{change, resolver},
    output::{
        encoder::Encoder,
        section::{Interface, Section},
    },
    ownership::{Owner, news::News, processes::Processes},
    talk::{Talk, report},
};

/// A program of the classic packet filter: a byte for the hook, and eight for each instruction.
pub fn translator(bytes: &[u8]) {
    let Some((hook, program)) = bytes.split_first() else { return };
    let read = |[c0, c1, jt, jf, k @ ..]: &[u8; 8]| Instruction {
        code: u16::from_ne_bytes([*c0, *c1]),
        jt: *jt,
        jf: *jf,
        k: u32::from_ne_bytes(*k),
    };
    let program: Vec<_> = program.as_chunks().0.iter().map(read).collect();
    let [outgoing, tags, direct] = [1, 2, 4].map(|bit| hook & bit != 0);
    sound::check(&program, Hook { outgoing, tags, direct });
}

/// Records of the kernel side, as [`each_record`] has them, and all that becomes of them.
pub fn records(bytes: &[u8]) {
    let mut files = [Format::Pcap, Format::Pcapng].map(File::new);
    let mut talk = Talk::new(true);
    let mut processes = Processes::started_by(1, "nsntrace");
    let mut packets = 0;
    each_record(bytes, |header, packet| {
        let time = Duration::from_nanos(header.time);
        if let Some(news) = News::read(packet) {
            processes.take(news, time);
        }
        let owner = processes.owner(header);
        talk.see(header, packet, owner);
        let names = talk.news();
        files.iter_mut().for_each(|file| file.add(time, header, owner, packet, &names));
        packets += 1;
    });
    processes.lines(Duration::ZERO, Duration::MAX);
    files.iter().for_each(|file| file.has(packets));
    let summary = talk.into_summary().expect("one was wanted");
    let peers = summary.peers().into_iter().map(|peer| &peer.traffic).chain([summary.link()]);
    assert!(peers.map(|traffic| traffic.packets.total()).sum::<u64>() <= packets);
    for text in report::texts(&summary, &Counters::default()) {
        assert!(!text.chars().any(|sign| sign.is_control() && sign != '\n'), "{text:?}");
    }
}

/// A trace in memory.
struct File {
    encoder: Encoder,
    bytes: Vec<u8>,
    /// Where its first packet may be.
    begin: usize,
}

impl File {
    fn new(format: Format) -> Self {
        let interface = Interface { index: 1, link_type: linktype::EN10MB, ..Interface::default() };
        let section = Section {
            snaplen: MAX_SNAPLEN,
            filter: None,
            link_type: linktype::EN10MB,
            interfaces: vec![interface],
            name_of: |_| None,
        };
        let (mut encoder, mut bytes) = (Encoder::new(format, section), Vec::new());
        encoder.begin(&mut bytes);
        Self { encoder, begin: bytes.len(), bytes }
    }

    fn add(
        &mut self,
        time: Duration,
        header: &RecordHeader,
        owner: Option<Owner<'_>>,
        packet: &[u8],
        names: &[(IpAddr, String)],
    ) {
        self.encoder.record(&mut self.bytes, time, header, owner, packet);
        self.encoder.names(&mut self.bytes, names);
    }

    /// It is made of these packets, and all of it is whole.
    fn has(&self, packets: u64) {
        let body = &self.bytes[self.begin..];
        assert_eq!(self.encoder.whole(body), (packets, body.len()));
    }
}

/// Records from bytes: twenty of a header, of which two are the packet's length, then the packet. The kernel side says no
/// wrong lengths, and everything else may be anything.
fn each_record(mut bytes: &[u8], mut take: impl FnMut(&RecordHeader, &[u8])) {
    while let Some((head, rest)) = bytes.split_first_chunk::<20>() {
        let [t0, t1, t2, t3, l0, l1, w0, w1, o0, o1, i, tci, p0, p1, kind, direction, seconds, _, _, _] =
            *head;
        let length = usize::from(u16::from_ne_bytes([l0, l1])).min(rest.len());
        let (packet, rest) = rest.split_at(length);
        let cap_len = u32::try_from(length).unwrap_or_default();
        let time = u64::from(u32::from_ne_bytes([t0, t1, t2, t3])) + u64::from(seconds) * 1_000_000_000;
        let header = RecordHeader {
            time,
            wire_len: cap_len + u32::from(u16::from_ne_bytes([w0, w1])),
            cap_len,
            owner: u16::from_ne_bytes([o0, o1]).into(),
            ifindex: i.into(),
            vlan_tci: tci.into(),
            vlan_proto: u16::from_ne_bytes([p0, p1]),
            linktype: if kind & 1 == 0 { linktype::EN10MB } else { linktype::RAW },
            direction,
            gap: 0,
        };
        take(&header, packet);
        bytes = rest;
    }
}

/// A resolv.conf.
pub fn resolv_conf(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let read = resolver::resolv_conf::ResolvConf::parse(&text);
    assert!((1..=3).contains(&read.servers.len()));
    read.servers.iter().for_each(|server| {
        server.socket_address();
    });
    let server: IpAddr = [192, 0, 2, 1].into();
    let written = read.with_servers(&[server]);
    let again = resolver::resolv_conf::ResolvConf::parse(&written);
    assert!(again.servers.len() == 1 && again.servers[0].address == server, "{written:?}");
    assert_eq!(again.with_servers(&[server]), written);
}

/// A question to the relay and what comes back: the first byte is the question's length.
pub fn relay(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (question, answer) = rest.split_at(rest.len().min((*length).into()));
    resolver::exchange::check(question, answer);
}

/// A packet, without and with a link-layer header.
pub fn packet(bytes: &[u8]) {
    for link_type in [linktype::EN10MB, linktype::RAW] {
        for wire_length in [0, 60, u32::MAX] {
            if let Some(packet) = Packet::read(link_type, bytes, wire_length) {
                packet.ends();
            }
        }
    }
}

/// A message of the DNS.
pub fn dns(bytes: &[u8]) {
    let mut stream = bytes;
    while let Some(message) = dns::next_in_stream(&mut stream) {
        assert!(message.len() + 2 <= bytes.len());
    }
    if let Some(message) = Message::read(bytes) {
        let is_plain = |name: &str| name.chars().all(|sign| sign.is_ascii_graphic());
        assert!(message.name().is_none_or(|name| is_plain(&name)));
        assert!(message.addresses().len() <= 64);
    }
}

/// A request of HTTP.
pub fn http(bytes: &[u8]) {
    http::is_begun(bytes);
    if let Some(host) = http::host(bytes) {
        assert!(host.chars().all(|sign| sign.is_ascii_graphic()));
    }
}

/// What a client of TLS says first.
pub fn tls(bytes: &[u8]) {
    ClientHello::is_begun(bytes);
    if let Some(hello) = ClientHello::read(bytes) {
        hello.server_name();
    }
}

/// The record of a run.
pub fn journal(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(changes) = change::parse(text) else { return };
    let line = |change| serde_json::to_string(change).expect("as it was written") + "\n";
    assert_eq!(change::parse(&changes.iter().map(line).collect::<String>()), Some(changes));
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    type Target = fn(&[u8]);

    /// Each target, by the name that its folders have.
    const TARGETS: [(&str, Target); 9] = [
        ("translator", translator),
        ("records", records),
        ("resolv_conf", resolv_conf),
        ("relay", relay),
        ("packet", packet),
        ("dns", dns),
        ("http", http),
        ("tls", tls),
        ("journal", journal),
    ];

    /// They are compiled by `cargo xtask fuzz` only, so there is nothing in them that could be wrong.
    #[test]
    fn each_target_is_a_line() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
        assert_eq!(fs::read_dir(&folder).expect("targets").count(), TARGETS.len());
        let manifest = fs::read_to_string(folder.join("../Cargo.toml")).expect("a manifest");
        for (name, _) in TARGETS {
            let line =
                format!("libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nsntrace::fuzzing::{name}(bytes));\n");
            let text = fs::read_to_string(folder.join(format!("{name}.rs"))).expect(name);
            assert_eq!(text, format!("#![no_main]\n\n{line}"));
            assert!(
                manifest.contains(&format!("[[bin]]\nname = \"{name}\"\n")),
                "{name} is not in the manifest"
            );
        }
    }

    #[test]
    fn what_was_found_is_survived() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            let files = fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            let inputs: Vec<_> = files.map(|file| file.expect("listed").path()).collect();
            assert!(!inputs.is_empty(), "{name} has no corpus");
            for path in inputs {
                // The name of the file stands in what a panic says before.
                println!("{}", path.display());
                target(&fs::read(path).expect("read"));
            }
        }
    }
}
