//! The frames of the differential test of filters: many shapes, the same in every run.
//!
//! Addresses, ports, tags and labels come from small pools, the ones that `expressions.txt` names: an expression
//! matches some frames and not others.

use fastrand::Rng;

type Bytes = Vec<u8>;
/// An Ethernet type and what follows it.
type Network = (u16, Bytes);
/// An IP protocol and what follows the IP header, or the extension header before it.
type Transport = (u8, Bytes);
type Family = fn(&mut Rng) -> Network;

const SEED: u64 = 0x6e73_6e74_7261_6365;
const RUNT_LENGTHS: usize = 81;
const BIG_LENGTHS: [usize; 4] = [1500, 4000, 9000, 65_000];
const GARBAGE: usize = 160;
const GOOD: usize = 2400;
const MUTANTS: usize = 400;

/// What most frames are; one that stands here more than once is more frequent.
const FAMILIES: [Family; 34] = [
    over_ip4, over_ip4, over_ip4, over_ip4, over_ip4, over_ip4, over_ip6, over_ip6, over_ip6, over_ip6,
    fragment, get, signed, chained, chained, arp, arp, tagged, tagged, tagged, tagged, labelled, labelled,
    dialled, dialled, enveloped, enveloped, nested, linked, linked, linked, historic, historic, historic,
];

const MACS: [u64; 9] = [
    0x0200_0000_0001,
    0x0200_0000_0002,
    0x0200_0000_0003,
    0x5254_0012_3456,
    0xaa00_0400_0204,
    0xffff_ffff_ffff,
    0x0100_5e00_00fb,
    0x3333_0000_0001,
    0x0180_c200_0000,
];
/// 10.99.0.1, .2, .200, 10.1.2.3, 203.0.113.7, 192.168.1.1, .20, 172.16.5.4, 8.8.8.8, 127.0.0.1, 224.0.0.251,
/// 239.1.2.3, the broadcast addresses 255.255.255.255 and 10.99.0.255, and 0.0.0.0.
const HOSTS: [u32; 17] = [
    0x0a63_0001,
    0x0a63_0001,
    0x0a63_0002,
    0x0a63_0002,
    0x0a63_00c8,
    0x0a01_0203,
    0xcb00_7107,
    0xc0a8_0101,
    0xc0a8_0114,
    0xac10_0504,
    0x0808_0808,
    0x7f00_0001,
    0xe000_00fb,
    0xef01_0203,
    0xffff_ffff,
    0x0a63_00ff,
    0,
];
const HOSTS6: [u128; 9] = [
    0xfe80_0000_0000_0000_0000_0000_0000_0001,
    0xfe80_0000_0000_0000_0000_00ff_fe00_0002,
    0x2001_0db8_0000_0000_0000_0000_0000_0001,
    0x2001_0db8_0001_0000_0000_0000_0000_0002,
    0x2001_0db8_0001_0002_8000_0000_0000_0003,
    0xfd00_0000_0000_0000_0000_0000_0000_0099,
    0xff02_0000_0000_0000_0000_0000_0000_0001,
    0xff02_0000_0000_0000_0000_0000_0000_00fb,
    1,
];
const PORTS: [u16; 16] = [0, 22, 53, 67, 80, 80, 80, 123, 443, 1024, 5353, 6000, 6007, 6081, 8080, 65_535];
const VLANS: [u16; 7] = [0, 1, 10, 100, 200, 300, 4095];
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const LABELS: [u32; 6] = [0, 3, 16, 1024, 100_000, 1_048_575];
const SESSIONS: [u16; 4] = [0, 1, 0x27, 0xffff];
const VNIS: [u32; 4] = [0, 1, 0xb, 0xff_ffff];
const FLAGS: [u8; 10] = [0, 1, 2, 4, 0x10, 0x11, 0x12, 0x18, 0xc2, 0x3f];
const ICMP: [u8; 13] = [0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 17, 18];
const ICMP6: [u8; 18] = [1, 2, 3, 4, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 141, 143, 151, 155];
const IGMP: [u8; 4] = [0x11, 0x16, 0x17, 0x22];
const HEADERLESS: [u8; 13] = [0, 4, 9, 41, 47, 50, 59, 88, 89, 103, 112, 115, 255];
/// The last one, authentication, is what libpcap does not walk past.
const EXTENSIONS: [u8; 5] = [0, 43, 44, 60, 51];
const ISIS: [u8; 10] = [15, 16, 17, 18, 20, 24, 25, 26, 27, 31];
const CONTROLS: [u8; 13] = [0, 2, 1, 5, 9, 0x0d, 3, 0x63, 0x43, 0x6f, 0xe3, 0xaf, 0x87];
const HISTORIC: [u16; 14] = [
    0x0600, 0x6001, 0x6002, 0x6003, 0x6003, 0x6003, 0x6004, 0x6007, 0x809b, 0x80f3, 0x8137, 0x8863, 0x88cc,
    0x9000,
];

/// All frames, from an empty one to 65,000 bytes.
pub fn frames() -> Vec<Vec<u8>> {
    let mut rng = Rng::with_seed(SEED);
    let families = FAMILIES.into_iter().cycle().take(GOOD);
    let mut frames: Vec<Bytes> = families.map(|family| framed(&mut rng, family)).collect();
    let mutants: Vec<Bytes> = (0..MUTANTS).map(|_| mutant(&mut rng, &frames)).collect();
    frames.extend(mutants);
    frames.extend(runts(&mut rng));
    frames.extend((0..GARBAGE).map(|_| garbage(&mut rng)));
    frames.extend(BIG_LENGTHS.into_iter().flat_map(|length| big(&mut rng, length)));
    frames.retain(|frame| [14, 18].into_iter().all(|start| frame.get(start..).is_none_or(ends)));
    frames
}

/// Whether libpcap's walk along the headers of this packet ends, whichever IP it is. After an authentication header
/// libpcap 1.10.3 goes on at that header's length, counted from the packet's start: at times in circles for ever.
fn ends(packet: &[u8]) -> bool {
    let options = packet.first().map_or(0, |first| 4 * usize::from(first & 15));
    walk_ends(packet, 9, options) && walk_ends(packet, 6, 40)
}

fn walk_ends(packet: &[u8], first: usize, mut at: usize) -> bool {
    let mut header = packet.get(first).copied().unwrap_or_default();
    for _ in 0..=packet.len() {
        let Some(&[next, units]) = packet.get(at..at + 2) else { return true };
        at = match header {
            0 | 43 | 44 | 60 => at + 8 * (usize::from(units) + 1),
            51 => 4 * (usize::from(units) + 2),
            _ => return true,
        };
        header = next;
    }
    false
}

/// One frame of a family.
fn framed(rng: &mut Rng, family: Family) -> Bytes {
    let packet = family(rng);
    ethernet(rng, packet)
}

fn over_ip4(rng: &mut Rng) -> Network {
    let packet = transport(rng);
    ip4(rng, 0, packet)
}

fn over_ip6(rng: &mut Rng) -> Network {
    let packet = if rng.u8(..4) == 0 { (58, typed(rng, &ICMP6)) } else { transport(rng) };
    ip6(rng, &[], packet)
}

/// A first, a middle or a last fragment, or a packet that must not be cut.
fn fragment(rng: &mut Rng) -> Network {
    let field = pick(rng, &[0x2000, 0x20b9, 0x3fff, 0x00b9, 0x0001, 0x1fff, 0x4000]);
    let packet = transport(rng);
    ip4(rng, field, packet)
}

fn get(rng: &mut Rng) -> Network {
    let request = pick(rng, &["GET / HTTP/1.1\r\n\r\n", "GET /index.html HTTP/1.0\r\n\r\n", "POST /", "GE"]);
    let (flags, words) = (pick(rng, &FLAGS), pick(rng, &[0, 0, 3, 8, 10]));
    let packet = tcp(rng, flags, words, request.as_bytes());
    over_either(rng, packet)
}

/// IPv4 with a chain of authentication headers.
fn signed(rng: &mut Rng) -> Network {
    let headers = vec![51; rng.usize(1..6)];
    let packet = transport(rng);
    let packet = chain(rng, &headers, packet);
    ip4(rng, 0, packet)
}

/// IPv6 with extension headers, sometimes very many, sometimes cut off among them.
fn chained(rng: &mut Rng) -> Network {
    let most = pick(rng, &[1, 2, 3, 5, 9, 20, 39, 64, 120]);
    let kinds = if rng.u8(..3) == 0 { &EXTENSIONS[..] } else { &EXTENSIONS[..4] };
    let headers: Vec<u8> = (0..rng.usize(most / 2..=most)).map(|_| pick(rng, kinds)).collect();
    let packet = transport(rng);
    let (kind, mut packet) = ip6(rng, &headers, packet);
    if rng.u8(..4) == 0 {
        packet.truncate(rng.usize(40..=packet.len()));
    }
    (kind, packet)
}

/// One VLAN tag, two or three.
fn tagged(rng: &mut Rng) -> Network {
    let inner = network(rng);
    (0..rng.u8(1..=3)).fold(inner, |packet, _| vlan(rng, &packet))
}

/// A stack of MPLS labels, sometimes inside a VLAN.
fn labelled(rng: &mut Rng) -> Network {
    let inner = network(rng);
    let packet = mpls(rng, &inner);
    if rng.u8(..4) == 0 { vlan(rng, &packet) } else { packet }
}

fn dialled(rng: &mut Rng) -> Network {
    let inner = network(rng);
    let packet = pppoe(rng, &inner);
    if rng.u8(..5) == 0 { vlan(rng, &packet) } else { packet }
}

fn enveloped(rng: &mut Rng) -> Network {
    let packet = geneve(rng);
    let packet = over_either(rng, packet);
    if rng.u8(..4) == 0 { vlan(rng, &packet) } else { packet }
}

/// IP in GRE or in IP.
fn nested(rng: &mut Rng) -> Network {
    let (kind, inner) = network(rng);
    let packet = match kind {
        0x0800 if rng.bool() => (4, inner),
        0x86dd if rng.bool() => (41, inner),
        _ => (47, [&[0, 0], kind.to_be_bytes().as_slice(), &inner].concat()),
    };
    over_either(rng, packet)
}

/// What an IEEE 802.3 frame has in place of the type, its length, and what is known by its LLC header.
fn linked(rng: &mut Rng) -> Network {
    let head = match rng.u8(..13) {
        0 => vec![0x42, 0x42, 3, 0, 0, 0, 0],
        1..=4 => vec![0xfe, 0xfe, 3, 0x83, 27, 1, 0, pick(rng, &ISIS), 1, 0, 0],
        5 => vec![0xfe, 0xfe, 3, pick(rng, &[0x81, 0x82]), 7, 1, 0],
        6 => vec![0xf0, 0xf0, pick(rng, &CONTROLS)],
        7 => vec![0xe0, 0xe0, 3, 0xff, 0xff],
        8 => vec![0xff, 0xff],
        9 | 10 => snap(rng),
        _ => vec![pick(rng, &[0, 4, 6, 0xaa]), pick(rng, &[0, 1, 5, 0xaa]), pick(rng, &CONTROLS)],
    };
    let body = [head, payload(rng)].concat();
    (u16::from_be_bytes(size(body.len())), body)
}

/// Protocols of another age, and others that are known by their Ethernet type alone.
fn historic(rng: &mut Rng) -> Network {
    let kind = pick(rng, &HISTORIC);
    (kind, if kind == 0x6003 { decnet(rng) } else { payload(rng) })
}

/// Some frames cut off at every length.
fn runts(rng: &mut Rng) -> Vec<Bytes> {
    let whole = [over_ip4, get, over_ip6, chained, tagged, enveloped].map(|family| framed(rng, family));
    let cut = |frame: &Bytes, length| frame[..frame.len().min(length)].to_vec();
    whole.iter().flat_map(|frame| (0..RUNT_LENGTHS).map(move |length| cut(frame, length))).collect()
}

/// Frames of exactly this length, over IPv4 and IPv6, with a VLAN tag and a length that is none.
fn big(rng: &mut Rng, length: usize) -> [Bytes; 4] {
    let body = bytes(rng, length);
    let segment = tcp(rng, 0x18, 0, &body);
    let datagram = udp(rng, &body);
    let (four, six) = (ip4(rng, 0, segment), ip6(rng, &[], datagram));
    let four_tagged = vlan(rng, &four);
    [four, six, four_tagged, (1500, body)].map(|packet| {
        let mut frame = ethernet(rng, packet);
        frame.truncate(length);
        frame
    })
}

fn garbage(rng: &mut Rng) -> Bytes {
    let most = pick(rng, &[20, 64, 200, 1500]);
    let length = rng.usize(0..=most);
    bytes(rng, length)
}

/// A good frame with some bits flipped, most of them in its headers.
fn mutant(rng: &mut Rng, frames: &[Bytes]) -> Bytes {
    let mut frame = frames[rng.usize(..frames.len())].clone();
    let end = frame.len().min(if rng.bool() { 40 } else { 120 });
    for _ in 0..rng.usize(1..=5) {
        frame[rng.usize(..end)] ^= 1 << rng.u8(..8);
    }
    frame
}

/// A frame, padded like a real one or not.
fn ethernet(rng: &mut Rng, (kind, packet): Network) -> Bytes {
    let mut frame = [mac(rng), mac(rng), kind.to_be_bytes().to_vec(), packet].concat();
    if rng.bool() {
        frame.resize(frame.len().max(60), 0);
    }
    frame
}

fn over_either(rng: &mut Rng, packet: Transport) -> Network {
    if rng.u8(..4) == 0 { ip6(rng, &[], packet) } else { ip4(rng, 0, packet) }
}

fn network(rng: &mut Rng) -> Network {
    let packet = transport(rng);
    match rng.u8(..8) {
        0..=4 => ip4(rng, 0, packet),
        5 | 6 => ip6(rng, &[], packet),
        _ => arp(rng),
    }
}

fn vlan(rng: &mut Rng, (kind, packet): &Network) -> Network {
    let tag = u16::from(rng.u8(..16)) << 12 | pick(rng, &VLANS);
    (pick(rng, &TAGS), [&tag.to_be_bytes(), kind.to_be_bytes().as_slice(), packet].concat())
}

fn mpls(rng: &mut Rng, (_, inner): &Network) -> Network {
    let (mut packet, depth) = (Bytes::new(), pick(rng, &[1, 1, 1, 2, 3, 4]));
    for level in 1..=depth {
        let entry = pick(rng, &LABELS) << 12 | u32::from(level == depth) << 8 | u32::from(rng.u8(..));
        packet.extend(entry.to_be_bytes());
    }
    packet.extend(inner);
    (if rng.u8(..8) == 0 { 0x8848 } else { 0x8847 }, packet)
}

fn pppoe(rng: &mut Rng, (kind, inner): &Network) -> Network {
    let protocol = match kind {
        0x0800 => [0, 0x21],
        0x86dd => [0, 0x57],
        _ => [0xc0, 0x21],
    };
    let session = pick(rng, &SESSIONS).to_be_bytes();
    let header = [[0x11, 0], session, size(inner.len() + 2), protocol].concat();
    (0x8864, [header.as_slice(), inner].concat())
}

/// ARP, or RARP at times.
fn arp(rng: &mut Rng) -> Network {
    let (kind, operation) = pick(rng, &[(0x0806, 1), (0x0806, 1), (0x0806, 2), (0x8035, 3), (0x8035, 4)]);
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    for _ in 0..2 {
        packet.extend([mac(rng), host(rng)].concat());
    }
    (kind, packet)
}

/// An IPv4 packet, with options at times.
fn ip4(rng: &mut Rng, fragment: u16, (protocol, body): Transport) -> Network {
    let words: u8 = if rng.u8(..4) == 0 { rng.u8(1..=10) } else { 0 };
    let options = bytes(rng, 4 * usize::from(words));
    let mut packet = vec![0x45 + words, pick(rng, &[0, 0, 0x10, 0xb8])];
    packet.extend(size(20 + options.len() + body.len()));
    packet.extend(rng.u16(..).to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([pick(rng, &[0, 1, 9, 32, 64, 128, 255]), protocol, rng.u8(..), rng.u8(..)]);
    packet.extend([host(rng), host(rng)].concat());
    (0x0800, [packet, options, body].concat())
}

fn ip6(rng: &mut Rng, headers: &[u8], packet: Transport) -> Network {
    let (next, body) = chain(rng, headers, packet);
    let mut packet = vec![0x60 | rng.u8(..2), rng.u8(..), rng.u8(..), rng.u8(..)];
    packet.extend(size(body.len()));
    packet.extend([next, pick(rng, &[0, 1, 64, 255])]);
    packet.extend([pick(rng, &HOSTS6), pick(rng, &HOSTS6)].map(u128::to_be_bytes).concat());
    (0x86dd, [packet, body].concat())
}

/// Puts the extension headers before the packet, each naming the next.
fn chain(rng: &mut Rng, headers: &[u8], packet: Transport) -> Transport {
    let before = |(next, rest), &header| (header, [extension(rng, header, next), rest].concat());
    headers.iter().rev().fold(packet, before)
}

fn extension(rng: &mut Rng, header: u8, next: u8) -> Bytes {
    let units = pick(rng, &[0, 0, 0, 1, 2, 4]);
    let length = match header {
        44 => 8,
        51 => 4 * (usize::from(units) + 2),
        _ => 8 * (usize::from(units) + 1),
    };
    [vec![next, units], bytes(rng, length - 2)].concat()
}

fn transport(rng: &mut Rng) -> Transport {
    let body = payload(rng);
    let (flags, words) = (pick(rng, &FLAGS), pick(rng, &[0, 0, 0, 3, 5, 10]));
    match rng.u8(..18) {
        0..=5 => tcp(rng, flags, words, &body),
        6..=9 => udp(rng, &body),
        10 | 11 => sctp(rng, &body),
        12 | 13 => (1, typed(rng, &ICMP)),
        14 => (58, typed(rng, &ICMP6)),
        15 => (2, typed(rng, &IGMP)),
        _ => (pick(rng, &HEADERLESS), body),
    }
}

fn tcp(rng: &mut Rng, flags: u8, words: u8, body: &[u8]) -> Transport {
    let (numbers, rest) = (bytes(rng, 8), bytes(rng, 6 + 4 * usize::from(words)));
    (6, [ports(rng), numbers, vec![(5 + words) << 4, flags], rest, body.to_vec()].concat())
}

fn udp(rng: &mut Rng, body: &[u8]) -> Transport {
    (17, [&ports(rng), size(8 + body.len()).as_slice(), &[0, 0], body].concat())
}

fn sctp(rng: &mut Rng, body: &[u8]) -> Transport {
    let chunk = [rng.u8(..15), rng.u8(..4)];
    (132, [&ports(rng), bytes(rng, 8).as_slice(), &chunk, &size(4 + body.len()), body].concat())
}

/// What ICMP and its like have in common: a type and a code first.
fn typed(rng: &mut Rng, kinds: &[u8]) -> Bytes {
    [vec![pick(rng, kinds), pick(rng, &[0, 0, 1, 3, 13])], bytes(rng, 6), payload(rng)].concat()
}

/// UDP with a Geneve header, options at times, and a packet or a whole frame inside.
fn geneve(rng: &mut Rng) -> Transport {
    let words = pick(rng, &[0, 0, 1, 3, 63]);
    let inner = network(rng);
    let (kind, inner) = if rng.bool() { inner } else { (0x6558, ethernet(rng, inner)) };
    let mut body = vec![words, pick(rng, &[0, 0x40, 0x80])];
    body.extend(kind.to_be_bytes());
    body.extend((pick(rng, &VNIS) << 8).to_be_bytes());
    body.extend(bytes(rng, 4 * usize::from(words)));
    body.extend(inner);
    let (protocol, mut packet) = udp(rng, &body);
    packet[2..4].copy_from_slice(&pick(rng, &[6081, 6081, 6081, 4789_u16]).to_be_bytes());
    (protocol, packet)
}

fn snap(rng: &mut Rng) -> Bytes {
    let (kind, inner) = network(rng);
    let oui = pick(rng, &[[0, 0, 0], [0, 0, 0xf8], [8, 0, 7]]);
    let kind = pick(rng, &[kind, kind, 0x809b, 0x80f3, 0x8137]);
    [&[0xaa, 0xaa, 3], oui.as_slice(), &kind.to_be_bytes(), &inner].concat()
}

/// A DECnet packet, with padding or not, with a long header or a short one.
fn decnet(rng: &mut Rng) -> Bytes {
    let (to, from) = (pick(rng, &[[2, 4], [3, 4], [1, 8]]), pick(rng, &[[2, 4], [3, 4], [1, 8]]));
    let header = if rng.bool() {
        [vec![6], vec![0; 6], to.to_vec(), vec![0; 6], from.to_vec(), vec![0; 4]].concat()
    } else {
        [vec![2], to.to_vec(), from.to_vec(), vec![0]].concat()
    };
    let padding: &[u8] = if rng.bool() { &[0x81] } else { &[] };
    [&[40, 0], padding, &header, &payload(rng)].concat()
}

fn mac(rng: &mut Rng) -> Bytes {
    pick(rng, &MACS).to_be_bytes()[2..].to_vec()
}

fn host(rng: &mut Rng) -> Bytes {
    pick(rng, &HOSTS).to_be_bytes().to_vec()
}

fn ports(rng: &mut Rng) -> Bytes {
    [pick(rng, &PORTS), pick(rng, &PORTS)].map(u16::to_be_bytes).concat()
}

/// Nothing, zeroes or noise.
fn payload(rng: &mut Rng) -> Bytes {
    let length = pick(rng, &[0, 1, 7, 16, 40, 100, 300, 700]);
    if rng.u8(..5) == 0 { vec![0; length] } else { bytes(rng, length) }
}

fn bytes(rng: &mut Rng, length: usize) -> Bytes {
    (0..length).map(|_| rng.u8(..)).collect()
}

fn size(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn pick<T: Copy>(rng: &mut Rng, pool: &[T]) -> T {
    pool[rng.usize(..pool.len())]
}

#[cfg(test)]
mod tests {
    use super::frames;

    #[test]
    fn there_are_many_of_all_lengths() {
        let frames = frames();
        assert!(frames.len() >= 2200, "{}", frames.len());
        for length in (0..=80).chain([1500, 4000, 9000, 65_000]) {
            assert!(frames.iter().any(|frame| frame.len() == length), "no frame of {length} bytes");
        }
    }

    #[test]
    fn they_are_the_same_every_time() {
        assert_eq!(frames(), frames());
    }
}
