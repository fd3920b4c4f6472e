use nsntrace_ebpf::{RecordHeader, direction, linktype};

use super::*;
use crate::{
    dissect::frames::{self, Flag},
    talk::Talk,
};

const PLAIN: Paint = Paint { is_on: false };

/// A summary of two peers, of which one has a long name and one does not answer.
fn summary() -> Summary {
    let mut talk = Talk::new(true);
    let hello = frames::client_hello([1; 32], "a-rather-long-name.of-a-server.example.test");
    let far = "[2001:db8:1111:2222:3333:4444:5555:6666]:443";
    for (to, flag, payload, wire_len) in [
        ("[fd00::2]:80", Flag::Syn, &[][..], 74),
        (far, Flag::Ack, &hello, 200),
        (far, Flag::Ack, &hello, 200_000),
    ] {
        let frame = frames::tcp("[fd00::1]:40000", to, flag, 1, payload);
        let header = RecordHeader {
            wire_len,
            linktype: linktype::EN10MB,
            direction: direction::OUTBOUND,
            ..RecordHeader::default()
        };
        talk.see(&header, &frame, None);
    }
    talk.into_summary().expect("a summary")
}

#[test]
fn without_a_terminal_nothing_is_cut() {
    let expected = "
PROTO  REMOTE                                        NAME                                         SENT   BYTES  RECV  BYTES    TIME
tcp    [2001:db8:1111:2222:3333:4444:5555:6666]:443  a-rather-long-name.of-a-server.example.test     2  200.2k     0      0  0.000s  1 retransmission
tcp    [fd00::2]:80                                                                                  1      74     0      0  0.000s  no answer
0 packets of the link itself, such as ARP
";
    assert_eq!(text(&summary(), PLAIN, None), expected);
}

#[test]
fn a_terminal_is_not_exceeded() {
    let summary = summary();
    for width in 70..200 {
        let table = text(&summary, PLAIN, Some(width));
        assert!(table.lines().all(|line| line.len() <= width), "{width}:\n{table}");
    }
    let expected = "
PROTO  REMOTE                NAME              SENT   BYTES  RECV  BYTES    TIME
tcp    [2001:db8..6666]:443  a-rather-long-..     2  200.2k     0      0  0.000s
       1 retransmission
tcp    [fd00::2]:80                               1      74     0      0  0.000s
       no answer
0 packets of the link itself, such as ARP
";
    assert_eq!(text(&summary, PLAIN, Some(80)), expected);
}

#[test]
fn colour_is_where_it_is_wanted() {
    let table = text(&summary(), Paint { is_on: true }, None);
    assert!(
        table.contains("\x1b[31mno answer\x1b[0m") && table.contains("\x1b[33m1 retransmission"),
        "{table}"
    );
    let plain: String =
        table.split('\x1b').map(|part| part.split_once('m').map_or(part, |parts| parts.1)).collect();
    assert_eq!(plain.lines().count(), text(&summary(), PLAIN, None).lines().count());
}

#[test]
fn bytes_are_short() {
    for (bytes, expected) in [
        (0, "0"),
        (99_999, "99999"),
        (100_000, "100.0k"),
        (999_999, "999.9k"),
        (1_000_000, "1.0M"),
        (12_345_678_901, "12.3G"),
        (u64::MAX, "18.4E"),
    ] {
        assert_eq!(short(bytes), expected);
    }
}
