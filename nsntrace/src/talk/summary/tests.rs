use nsntrace_ebpf::linktype;

use super::*;
use crate::{
    dissect::{
        dns::tests::{answer, query},
        frames::{self, Flag},
    },
    talk::Talk,
};

const CLIENT: &str = "10.0.0.1:40000";
const SERVER: &str = "10.0.0.2:443";
const RESOLVER: &str = "10.0.0.3:53";

/// A trace in which a packet passes each millisecond.
#[derive(Default)]
struct Trace {
    talk: Option<Talk>,
    time: u64,
    owner: u32,
    process: Option<&'static str>,
}

impl Trace {
    fn new() -> Self {
        Self { talk: Some(Talk::new(true)), ..Self::default() }
    }

    fn see(&mut self, direction: u8, frame: &[u8]) {
        self.time += 1_000_000;
        let length = u32::try_from(frame.len()).expect("short");
        let header = RecordHeader {
            time: self.time,
            wire_len: length,
            cap_len: length,
            direction,
            linktype: linktype::EN10MB,
            ..RecordHeader::default()
        };
        let owner = self.process.map(|name| Owner { pid: self.owner, name });
        self.talk.as_mut().expect("there").see(&header, frame, owner);
    }

    fn sent(&mut self, frame: &[u8]) {
        self.see(direction::OUTBOUND, frame);
    }

    fn received(&mut self, frame: &[u8]) {
        self.see(direction::INBOUND, frame);
    }

    fn tcp(&mut self, is_sent: bool, ends: [&str; 2], flag: Flag, sequence: u32, payload: &[u8]) {
        let [local, remote] = ends;
        let (from, to) = if is_sent { (local, remote) } else { (remote, local) };
        let frame = frames::tcp(from, to, flag, sequence, payload);
        self.see(if is_sent { direction::OUTBOUND } else { direction::INBOUND }, &frame);
    }

    fn end(mut self) -> Summary {
        self.talk.take().and_then(Talk::into_summary).expect("a summary")
    }
}

/// The only row.
fn only(summary: &Summary) -> &Peer {
    let peers = summary.peers();
    assert_eq!(peers.len(), 1, "{peers:?}");
    peers[0]
}

fn names(peer: &Peer) -> Vec<(Source, &str)> {
    peer.names.iter().map(|name| (name.source, &name.name[..])).collect()
}

#[test]
fn a_connection_is_counted_both_ways() {
    let mut trace = Trace::new();
    let ends = [CLIENT, SERVER];
    trace.tcp(true, ends, Flag::Syn, 0, b"");
    trace.tcp(false, ends, Flag::SynAck, 0, b"");
    trace.tcp(true, ends, Flag::Ack, 1, &frames::client_hello([1; 32], "Www.Example.test"));
    trace.tcp(false, ends, Flag::Ack, 1, &[0; 1000]);
    trace.tcp(false, ends, Flag::Rst, 1001, b"");
    let summary = trace.end();
    let peer = only(&summary);
    assert_eq!(
        (peer.endpoint.protocol, peer.endpoint.port, peer.endpoint.role),
        (6, Some(443), Role::Client)
    );
    assert_eq!(peer.endpoint.address.to_string(), "10.0.0.2");
    assert_eq!((peer.traffic.packets.sent, peer.traffic.packets.received), (2, 3));
    assert_eq!(peer.traffic.bytes.received, 54 + 1054 + 54);
    assert_eq!(peer.traffic.duration().as_millis(), 4);
    assert_eq!((peer.connections, peer.refused, peer.unanswered), (1, 0, 0));
    assert_eq!((peer.resets.received, peer.retransmissions.total()), (1, 0));
    assert_eq!(names(peer), [(Source::Sni, "www.example.test")]);
}

#[test]
fn attempts_that_fail_are_told_apart() {
    let mut trace = Trace::new();
    trace.tcp(true, ["10.0.0.1:1", SERVER], Flag::Syn, 7, b"");
    trace.tcp(true, ["10.0.0.1:1", SERVER], Flag::Syn, 7, b"");
    trace.tcp(true, ["10.0.0.1:2", SERVER], Flag::Syn, 7, b"");
    trace.tcp(false, ["10.0.0.1:2", SERVER], Flag::Rst, 0, b"");
    // The same ports again.
    trace.tcp(true, ["10.0.0.1:2", SERVER], Flag::Syn, 8, b"");
    trace.tcp(false, ["10.0.0.1:2", SERVER], Flag::SynAck, 0, b"");
    let lost = frames::tcp("10.0.0.1:3", SERVER, Flag::Syn, 7, b"");
    trace.sent(&lost);
    trace.received(&frames::unreachable("10.0.0.9", "10.0.0.1", &lost[14..42]));
    trace.received(&frames::unreachable("10.0.0.9", "10.0.0.1", &lost[14..42]));
    let summary = trace.end();
    let peers = summary.peers();
    let peer = peers.iter().find(|peer| peer.endpoint.protocol == protocol::TCP).expect("a row");
    assert_eq!((peer.connections, peer.unanswered, peer.refused, peer.unreachable), (4, 1, 1, 1));
    assert_eq!((peer.retransmissions.sent, peer.resets.total()), (1, 0));
    let router = peers.iter().find(|peer| peer.endpoint.protocol == protocol::ICMP).expect("a row");
    assert_eq!(
        (router.endpoint.address.to_string(), router.traffic.packets.received),
        ("10.0.0.9".into(), 2)
    );
}

#[test]
fn what_its_own_kernel_refuses_was_reached() {
    let mut trace = Trace::new();
    let asked = frames::udp("10.0.0.1:1000", SERVER, b"question");
    let answer = frames::udp(SERVER, "10.0.0.1:1000", b"answer");
    trace.sent(&asked);
    trace.received(&answer);
    let mut refusal = frames::unreachable("10.0.0.1", "10.0.0.2", &answer[14..]);
    trace.sent(&refusal);
    // Too large for its way: it is sent again in smaller ones.
    refusal = frames::unreachable("10.0.0.9", "10.0.0.1", &asked[14..]);
    refusal[35] = 4;
    trace.received(&refusal);
    let summary = trace.end();
    let peers = summary.peers();
    let peer = peers.iter().find(|peer| peer.endpoint.protocol == protocol::UDP).expect("a row");
    assert_eq!((peer.connections, peer.unreachable), (1, 0));
}

#[test]
fn who_is_asked_has_the_port() {
    let mut trace = Trace::new();
    for (port, flag) in [(40_000, Flag::Syn), (40_001, Flag::Syn)] {
        let ends = ["10.0.0.1:8080".to_owned(), format!("10.0.0.2:{port}")];
        trace.tcp(false, [&ends[0], &ends[1]], flag, 0, b"GET / HTTP/1.1\r\nHost: me\r\n\r\n");
        trace.tcp(true, [&ends[0], &ends[1]], Flag::SynAck, 0, b"");
    }
    trace.received(&frames::udp("10.0.0.2:50", "10.0.0.1:40000", b"an old answer"));
    trace.received(&frames::udp("10.0.0.2:5000", "10.0.0.1:500", b"a question"));
    trace.tcp(true, ["10.0.0.1:41000", "10.0.0.4:22"], Flag::Ack, 5, b"an old one");
    let summary = trace.end();
    let found: Vec<_> = summary
        .peers()
        .iter()
        .map(|peer| {
            (
                peer.endpoint.protocol,
                peer.endpoint.address.to_string(),
                peer.endpoint.port,
                peer.endpoint.role,
                peer.connections,
            )
        })
        .collect();
    let two = || "10.0.0.2".to_owned();
    let expected = [
        (6, two(), Some(8080), Role::Server, 2),
        (6, "10.0.0.4".to_owned(), Some(22), Role::Client, 1),
        (17, two(), Some(50), Role::Client, 1),
        (17, two(), Some(500), Role::Server, 1),
    ];
    assert_eq!(found, expected);
    // It is the program's own name that the client says.
    assert!(summary.peers().iter().all(|peer| peer.names.is_empty()));
}

#[test]
fn names_are_from_answers_and_from_what_clients_say() {
    let mut trace = Trace::new();
    let records: &[(&[u8], u16, &[u8])] = &[(&[0xc0, 12], 1, &[10, 0, 0, 2])];
    trace.sent(&frames::udp(CLIENT, RESOLVER, &query(7, "www.example.test")));
    trace.received(&frames::udp(RESOLVER, CLIENT, &answer(7, "www.example.test", records)));
    // Nobody asked for this one.
    trace.received(&frames::udp(RESOLVER, CLIENT, &answer(8, "evil.test", records)));
    trace.sent(&frames::udp(CLIENT, RESOLVER, &query(9, "nowhere.test")));
    let ends = [CLIENT, "10.0.0.2:80"];
    trace.tcp(true, ends, Flag::Syn, 0, b"");
    trace.tcp(true, ends, Flag::Ack, 1, b"GET / HTTP/1.1\r\nHo");
    trace.tcp(true, ends, Flag::Ack, 19, b"st: web.\xfftest\r\nHost: web.test\r\n\r\n");
    trace.tcp(true, ends, Flag::Ack, 52, b"GET / HTTP/1.1\r\nHost: Other.test:80\r\n\r\n");
    let news = trace.talk.as_mut().expect("there").news();
    assert_eq!(news, [([10, 0, 0, 2].into(), "www.example.test".to_owned())]);
    let summary = trace.end();
    let peers = summary.peers();
    let web = peers.iter().find(|peer| peer.endpoint.port == Some(80)).expect("a row");
    assert_eq!(names(web), [(Source::Http, "other.test"), (Source::Dns, "www.example.test")]);
    let resolver = peers.iter().find(|peer| peer.endpoint.port == Some(53)).expect("a row");
    assert_eq!((resolver.queries, resolver.queries_unanswered), (2, 1));
    assert_eq!(resolver.unanswered_names, ["nowhere.test"]);
}

#[test]
fn lookups_by_tcp_come_in_pieces() {
    let mut trace = Trace::new();
    let in_stream = |message: Vec<u8>| {
        [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], &message].concat()
    };
    let records: &[(&[u8], u16, &[u8])] = &[(&[0xc0, 12], 1, &[10, 0, 0, 2])];
    let questions = [query(1, "a.test"), query(2, "b.test")].map(in_stream).concat();
    let answers = [answer(2, "b.test", records), answer(1, "a.test", &[])].map(in_stream).concat();
    let ends = [CLIENT, RESOLVER];
    for (is_sent, stream) in [(true, questions), (false, answers)] {
        for (at, byte) in stream.iter().enumerate() {
            trace.tcp(is_sent, ends, Flag::Ack, u32::try_from(at).expect("short"), &[*byte]);
        }
    }
    let news = trace.talk.as_mut().expect("there").news();
    assert_eq!(news, [([10, 0, 0, 2].into(), "b.test".to_owned())]);
    let summary = trace.end();
    assert_eq!((only(&summary).queries, only(&summary).queries_unanswered), (2, 0));
}

#[test]
fn what_the_program_says_to_itself_is_counted_once() {
    let (asking, asked) = ("127.0.0.1:40000", "127.0.0.1:80");
    // On loopback what goes out is recorded, in a cgroup what comes in too.
    for comes_in in [false, true] {
        let mut trace = Trace::new();
        for (from, to, flag, process) in [
            (asking, asked, Flag::Syn, (7, "client")),
            (asked, asking, Flag::SynAck, (8, "server")),
            (asking, asked, Flag::Ack, (7, "client")),
        ] {
            (trace.owner, trace.process) = (process.0, Some(process.1));
            let frame = frames::tcp(from, to, flag, 0, b"");
            trace.sent(&frame);
            if comes_in {
                trace.received(&frame);
            }
        }
        let summary = trace.end();
        let peer = only(&summary);
        assert_eq!((peer.endpoint.port, peer.endpoint.role), (Some(80), Role::Client));
        assert_eq!((peer.traffic.packets.sent, peer.traffic.packets.received), (2, 1));
        assert_eq!((peer.connections, peer.retransmissions.total(), peer.unanswered), (1, 0, 0));
        assert_eq!(peer.process.as_deref(), Some("client"));
    }
}

#[test]
fn fragments_belong_to_the_first_one() {
    let mut trace = Trace::new();
    let mut frame = frames::udp(CLIENT, SERVER, &[0; 100]);
    frame[19] = 7;
    frame[20..22].copy_from_slice(&[0x20, 0]);
    trace.sent(&frame);
    frame[20..22].copy_from_slice(&[0, 12]);
    trace.sent(&frame);
    let summary = trace.end();
    let peer = only(&summary);
    assert_eq!((peer.endpoint.port, peer.traffic.packets.sent, peer.connections), (Some(443), 2, 1));
}

#[test]
fn what_is_of_the_link_is_nobodys() {
    let mut trace = Trace::new();
    trace.sent(&[0xff; 42]);
    trace.received(&[]);
    let summary = trace.end();
    assert!(summary.peers().is_empty());
    let Traffic { packets, bytes, .. } = summary.link();
    assert_eq!((packets.sent, packets.received, bytes.sent), (1, 1, 42));
}

#[test]
fn floods_are_bounded_and_nothing_is_lost() {
    let mut trace = Trace::new();
    let count = 40_000_u32;
    for number in 0..count {
        let [_, a, b, c] = number.to_be_bytes();
        let remote = format!("10.{a}.{b}.{c}:80");
        trace.sent(&frames::tcp(CLIENT, &remote, Flag::Syn, 0, b""));
    }
    let summary = trace.end();
    let peers = summary.peers();
    assert_eq!(peers.len(), peers::MOST);
    let all = || peers.iter().copied().chain([summary.others()]);
    assert_eq!(all().map(|peer| peer.traffic.packets.sent).sum::<u64>(), u64::from(count));
    assert_eq!(all().map(|peer| peer.connections).sum::<u64>(), u64::from(count));
    assert_eq!(all().map(|peer| peer.unanswered).sum::<u64>(), u64::from(count));
}

#[test]
fn names_are_short_and_visible() {
    let mut peers = Peers::default();
    let key = Endpoint { protocol: 6, address: [10, 0, 0, 1].into(), port: None, role: Role::Client };
    let number = peers.of(None, key);
    let peer = peers.at(number);
    peer.name("a\u{1b}[31m\u{202e}ü B", Source::Sni);
    assert_eq!(peer.names[0].name, "a?[31m???b");
    for number in 0..100 {
        peer.name(&format!("{number}{}", "x".repeat(1000)), Source::Http);
    }
    assert!(peer.names.len() == 8 && peer.names.iter().all(|name| name.name.len() <= 255));
}

#[test]
fn addresses_are_no_names() {
    let mut peers = Peers::default();
    let key = Endpoint { protocol: 6, address: [10, 0, 0, 1].into(), port: None, role: Role::Client };
    let number = peers.of(None, key);
    let peer = peers.at(number);
    for name in ["10.0.0.1", "[fd00::1]", "fd00::1", "10.0.0.1.test"] {
        peer.name(name, Source::Http);
    }
    assert_eq!(names(peer), [(Source::Http, "10.0.0.1.test")]);
}

#[test]
fn each_process_has_its_rows() {
    let mut trace = Trace::new();
    let mut say = |port: u16, flag, owner, process| {
        (trace.owner, trace.process) = (owner, process);
        trace.tcp(true, [&format!("10.0.0.1:{port}"), SERVER], flag, 0, b"");
    };
    say(1, Flag::Syn, 7, Some("curl"));
    say(2, Flag::Syn, 8, Some("curl"));
    say(3, Flag::Syn, 9, Some("a\u{1b}b"));
    // What the kernel says for it is the connection's.
    say(3, Flag::Rst, 0, None);
    // A child has it now, and becomes another program.
    say(2, Flag::Ack, 10, Some("cat"));
    say(2, Flag::Ack, 10, Some("tac"));
    let summary = trace.end();
    let mut rows: Vec<_> = summary
        .peers()
        .iter()
        .map(|peer| (peer.process.clone().unwrap_or_default(), peer.pids.clone(), peer.traffic.packets.sent))
        .collect();
    rows.sort();
    let row = |name: &str, pids: &[u32], packets| (name.to_owned(), pids.to_vec(), packets);
    assert_eq!(
        rows,
        [row("a?b", &[9], 2), row("cat", &[10], 1), row("curl", &[7, 8], 2), row("tac", &[10], 1)]
    );
}

#[test]
fn packets_of_nobody_are_those_of_the_only_one() {
    let mut trace = Trace::new();
    trace.tcp(false, ["10.0.0.1:80", "10.0.0.2:1"], Flag::Syn, 0, b"");
    (trace.owner, trace.process) = (7, Some("server"));
    trace.tcp(true, ["10.0.0.1:80", "10.0.0.2:1"], Flag::SynAck, 0, b"");
    let summary = trace.end();
    let peer = only(&summary);
    assert_eq!((peer.process.as_deref(), peer.connections), (Some("server"), 1));
    assert_eq!((peer.traffic.packets.sent, peer.traffic.packets.received), (1, 1));

    // Of two nobody knows.
    let mut trace = Trace::new();
    for (port, process) in [(1, None), (2, Some("one")), (3, Some("other"))] {
        (trace.owner, trace.process) = (port, process);
        trace.tcp(true, [&format!("10.0.0.1:{port}"), SERVER], Flag::Syn, 0, b"");
    }
    assert_eq!(trace.end().peers().len(), 3);
}
