//! The owner of a packet that comes in at an interface.

use aya_ebpf::bindings::__sk_buff;

use super::headers::{self, TCP_FLAGS, read};

/// Flags of TCP.
const SYN: u8 = 0b10;
const SYN_ACK: u8 = 0b10010;

/// By its flow. What the packet itself tells of a socket is of the other end of the link: the one that sent it.
#[inline(always)]
pub fn owner(skb: *mut __sk_buff) -> u32 {
    let Some((flow, tcp)) = headers::flow(skb, false) else { return 0 };
    match flow.owner_by_socket(skb) {
        0 => {}
        owner => return owner,
    }
    // Nobody listens to who wants a new connection: that has nothing to do with an older one between the same ports.
    if let Some(tcp) = tcp
        && read::<u8>(skb, tcp + TCP_FLAGS).unwrap_or(0) & SYN_ACK == SYN
    {
        flow.forget();
        return 0;
    }
    flow.owner()
}
