//! Whatever the bytes are, reading them ends well.

use nsntrace_ebpf::linktype;
use proptest::{collection::vec, prelude::*};

use super::{
    frames::{self, Flag},
    packet::Packet,
    tls::ClientHello,
};

/// Any bytes, or what is almost a frame that means something.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let hello = frames::client_hello([7; 32], "www.example.test");
    let sound = prop::sample::select(vec![
        frames::tcp("10.0.0.1:1000", "10.0.0.2:443", Flag::Ack, 1, &hello),
        frames::tcp("[fd00::1]:1000", "[fd00::2]:443", Flag::Syn, 1, &[]),
        frames::tcp("[fd00::1]:1000", "[fd00::2]:443", Flag::Fin, 1, &[1]),
        frames::tcp("10.0.0.2:443", "10.0.0.1:1000", Flag::Rst, 1, &[]),
        frames::udp("[fd00::1]:1000", "[fd00::2]:53", &[0; 40]),
        frames::udp("10.0.0.1:1000", "10.0.0.2:53", &[0; 40]),
    ]);
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
    fn any_packet_is_read(frame in frame(), wire_length in any::<u32>()) {
        for (link_type, bytes) in [(linktype::EN10MB, &frame[..]), (linktype::RAW, frame.get(14..).unwrap_or_default())] {
            if let Some(packet) = Packet::read(link_type, bytes, wire_length) {
                packet.ends();
            }
        }
    }

    #[test]
    fn any_hello_is_read(frame in frame(), from in 0_usize..80) {
        if let Some(hello) = ClientHello::read(frame.get(from..).unwrap_or_default()) {
            hello.server_name();
        }
    }
}
