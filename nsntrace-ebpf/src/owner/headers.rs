//! The headers of a packet, as far as they tell whose it is.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes};

use super::flow::Flow;

/// Protocols by their numbers.
pub const ICMP: u8 = 1;
/// See above.
pub const TCP: u8 = 6;
/// See above.
pub const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// Where the flags are in the header of TCP.
pub const TCP_FLAGS: u32 = 13;

/// Where the headers begin in a frame, and the protocols there.
const NETWORK: u32 = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// The head of a packet in IPv4 or IPv6.
struct Network {
    source: [u32; 4],
    destination: [u32; 4],
    protocol: u8,
    is_v6: bool,
    /// Where the next header begins.
    end: u32,
}

/// The flow of a packet, if it is one of a flow; and where its header of TCP begins, if it has one: a message about another
/// packet has that one's flow.
#[inline(always)]
pub fn flow(skb: *mut __sk_buff, is_outbound: bool) -> Option<(Flow, Option<u32>)> {
    // SAFETY: a valid context.
    let kind = u16::from_be(unsafe { (*skb).protocol } as u16);
    let network = network(skb, NETWORK, kind)?;
    let flow = match network.protocol {
        TCP | UDP => {
            let [source, destination] = read::<[u16; 2]>(skb, network.end)?;
            if is_outbound {
                of(&network, source, destination)
            } else {
                turned(&network, source, destination)
            }
        }
        ICMP | ICMP6 => message(skb, &network, is_outbound)?,
        _ => return None,
    };
    Some((flow, (network.protocol == TCP).then_some(network.end)))
}

/// The flow of a message: an echo is of that of its number, and one that tells of another packet is of that packet's.
/// Others have none.
#[inline(always)]
fn message(skb: *mut __sk_buff, network: &Network, is_outbound: bool) -> Option<Flow> {
    let [kind, _, _, _, id @ .., _, _] = read::<[u8; 8]>(skb, network.end)?;
    let id = u16::from_ne_bytes(id);
    let (request, reply) = if network.is_v6 { (128, 129) } else { (8, 0) };
    if is_outbound {
        return (kind == request).then(|| of(network, id, 0));
    }
    if kind == reply {
        return Some(turned(network, 0, id));
    }
    let tells_of_a_packet = if network.is_v6 { kind < 128 } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
    if !tells_of_a_packet {
        return None;
    }
    let ours = self::network(skb, network.end + 8, if network.is_v6 { IPV6 } else { IPV4 })?;
    match ours.protocol {
        TCP | UDP => {
            let [source, destination] = read::<[u16; 2]>(skb, ours.end)?;
            Some(of(&ours, source, destination))
        }
        ICMP | ICMP6 => {
            let [kind, _, _, _, id @ .., _, _] = read::<[u8; 8]>(skb, ours.end)?;
            (kind == request).then(|| of(&ours, u16::from_ne_bytes(id), 0))
        }
        _ => None,
    }
}

/// The flow of a packet that goes out.
#[inline(always)]
fn of(network: &Network, local_port: u16, remote_port: u16) -> Flow {
    Flow {
        remote: network.destination,
        local: network.source,
        remote_port,
        local_port,
        protocol: network.protocol.into(),
    }
}

/// The flow of a packet that comes in.
#[inline(always)]
fn turned(network: &Network, source_port: u16, destination_port: u16) -> Flow {
    Flow {
        remote: network.source,
        local: network.destination,
        remote_port: source_port,
        local_port: destination_port,
        protocol: network.protocol.into(),
    }
}

/// The head at an offset. None of what is not the first of a fragmented packet's pieces.
#[inline(always)]
fn network(skb: *mut __sk_buff, offset: u32, kind: u16) -> Option<Network> {
    match kind {
        IPV4 => {
            let [first, piece, protocol, source, destination] = read::<[u32; 5]>(skb, offset)?;
            let [length, ..] = first.to_ne_bytes();
            let [_, _, piece @ ..] = piece.to_ne_bytes();
            let [_, protocol, ..] = protocol.to_ne_bytes();
            if u16::from_be_bytes(piece) & 0x1fff != 0 {
                return None;
            }
            Some(Network {
                source: [source, 0, 0, 0],
                destination: [destination, 0, 0, 0],
                protocol,
                is_v6: false,
                end: offset + u32::from(length & 15) * 4,
            })
        }
        IPV6 => {
            let [_, next, source @ .., e, f, g, h] = read::<[u32; 10]>(skb, offset)?;
            let [_, _, protocol, _] = next.to_ne_bytes();
            Some(Network { source, destination: [e, f, g, h], protocol, is_v6: true, end: offset + 40 })
        }
        _ => None,
    }
}

/// Bytes at an offset; none if the packet has not so many.
#[inline(always)]
pub fn read<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes all of the value, or says that it has not.
    unsafe {
        let result = bpf_skb_load_bytes(skb.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32);
        if result == 0 { Some(value.assume_init()) } else { None }
    }
}
