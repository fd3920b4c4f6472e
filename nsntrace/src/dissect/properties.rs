//! Whatever the bytes are, reading them ends well.

use nsntrace_ebpf::{RecordHeader, linktype};
use proptest::{collection::vec, prelude::*};

use super::{
    dns,
    frames::{self, Flag},
};
use crate::{fuzzing, talk::Talk};

/// Any bytes, or what is almost a frame that means something.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let hello = frames::client_hello([7; 32], "www.example.test");
    let sound = prop::sample::select(vec![
        frames::tcp("10.0.0.1:1000", "10.0.0.2:443", Flag::Ack, 1, &hello),
        frames::tcp("[fd00::1]:1000", "[fd00::2]:443", Flag::Syn, 1, &[]),
        frames::tcp("[fd00::1]:1000", "[fd00::2]:443", Flag::Fin, 1, &[1]),
        frames::tcp("10.0.0.2:443", "10.0.0.1:1000", Flag::Rst, 1, &[]),
        frames::tcp(
            "10.0.0.1:1000",
            "10.0.0.2:53",
            Flag::Ack,
            1,
            &[&[0, 28][..], &dns::tests::query(7, "a.b.test")].concat(),
        ),
        frames::udp("[fd00::1]:1000", "[fd00::2]:53", &dns::tests::query(7, "a.test")),
        frames::udp(
            "[fd00::2]:53",
            "[fd00::1]:1000",
            &dns::tests::answer(7, "a.test", &[(&[0xc0, 12], 1, &[9; 4])]),
        ),
        frames::unreachable(
            "10.0.0.2",
            "10.0.0.1",
            &frames::tcp("10.0.0.1:1000", "10.0.0.2:443", Flag::Syn, 1, &[])[14..],
        ),
    ]);
    bent(sound)
}

/// Any bytes, or what is almost a message of the DNS.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let asked = &[0xc0, 12][..];
    let sound = prop::sample::select(vec![
        dns::tests::query(7, "www.example.test"),
        dns::tests::answer(
            7,
            "example.test",
            &[(asked, 5, &[1, b'a', 0xc0, 12]), (&[1, b'a', 0xc0, 12], 1, &[9; 4])],
        ),
        dns::tests::answer(
            7,
            "a.b.c.d",
            &[(asked, 28, &[9; 16]), (&[0xc0, 14], 5, asked), (&[0xc0, 45], 1, &[9; 4])],
        ),
    ]);
    bent(sound)
}

/// Any bytes, or what is almost a request.
fn request() -> impl Strategy<Value = Vec<u8>> {
    bent(prop::sample::select(vec![b"GET /x HTTP/1.1\r\nA: b\r\nHost: [fd00::1]:80\r\n\r\n".to_vec()]))
}

/// Any bytes, or these with some other ones among them, and perhaps cut.
fn bent(sound: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let bent = (sound, vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), any::<prop::sample::Index>());
    let bent = bent.prop_map(|(mut frame, changes, end)| {
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        frame.truncate(end.index(2 * frame.len()));
        frame
    });
    prop_oneof![1 => vec(any::<u8>(), 0..200), 4 => bent]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_packet_is_read(frame in frame()) {
        fuzzing::packet(&frame);
        fuzzing::packet(frame.get(14..).unwrap_or_default());
    }

    #[test]
    fn any_talk_is_followed(frames in vec((frame(), 1_u8..3, any::<u16>()), 0..20)) {
        let mut talk = Talk::new(true);
        let count = frames.len() as u64;
        for (frame, direction, time) in frames {
            let length = frame.len().try_into().expect("short");
            let header = RecordHeader {
                time: time.into(),
                wire_len: length,
                cap_len: length,
                linktype: linktype::EN10MB,
                direction,
                ..RecordHeader::default()
            };
            talk.see(&header, &frame, None);
        }
        let summary = talk.into_summary().expect("a summary");
        let peers = summary.peers().into_iter().map(|peer| &peer.traffic).chain([summary.link()]);
        prop_assert!(peers.map(|traffic| traffic.packets.total()).sum::<u64>() <= count);
    }

    #[test]
    fn any_hello_is_read(frame in frame(), from in 0_usize..80) {
        fuzzing::tls(frame.get(from..).unwrap_or_default());
    }

    #[test]
    fn any_message_is_read(bytes in message()) {
        fuzzing::dns(&bytes);
    }

    #[test]
    fn any_request_is_read(bytes in request()) {
        fuzzing::http(&bytes);
    }
}
