//! The owner of a packet that goes out.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::bpf_sk_fullsock,
};
use nsntrace_ebpf::ownership::Tag;

use super::{
    current,
    headers::{self, TCP, TCP_FLAGS, UDP, read},
    socket, tags,
};

/// Flags of TCP: the beginning and the end of a connection.
const FIN_SYN_RST: u8 = 0b111;

/// At an interface.
#[inline(always)]
pub fn owner(skb: *mut __sk_buff) -> u32 {
    let socket = socket(skb);
    if socket.is_null() {
        return without_socket(skb);
    }
    // SAFETY: the helper takes any socket that is not null.
    let full = unsafe { bpf_sk_fullsock(socket) };
    if full.is_null() {
        // An answer to somebody who wants a connection.
        let owner = tags::of_listener(socket);
        return if owner == 0 { without_socket(skb) } else { remember(skb, owner) };
    }
    let tag = by_sender(full);
    if tag.is_null() {
        return without_socket(skb);
    }
    // SAFETY: a tag, and a socket in full.
    unsafe {
        let (owner, protocol) = ((*tag).owner, (*full).protocol as u8);
        if protocol == UDP {
            if (*tag).remembered != 0 {
                return owner;
            }
            (*tag).remembered = 1;
        }
        remember(skb, owner)
    }
}

/// At a cgroup: there are only packets with a socket, and none comes when it has gone.
#[inline(always)]
pub fn owner_by_socket(skb: *mut __sk_buff) -> u32 {
    let socket = socket(skb);
    if socket.is_null() {
        return 0;
    }
    // SAFETY: the helper takes any socket that is not null.
    let full = unsafe { bpf_sk_fullsock(socket) };
    if full.is_null() {
        return tags::of_listener(socket);
    }
    let tag = by_sender(full);
    // SAFETY: a tag.
    if tag.is_null() { 0 } else { unsafe { (*tag).owner } }
}

/// The tag of a socket, on which who sends by it just now is noted; null if it has none, and nobody is known to send.
#[inline(always)]
fn by_sender(socket: *mut bpf_sock) -> *mut Tag {
    let tag = tags::get(socket);
    if tag.is_null() {
        let sender = current::sender(socket, 0);
        return if sender == 0 { tag } else { tags::set(socket.cast(), sender) };
    }
    // SAFETY: a tag; its words are read and written in one step.
    unsafe {
        let owner = (*tag).owner;
        let sender = current::sender(socket, owner);
        if sender != 0 && sender != owner {
            (*tag).owner = sender;
            (*tag).remembered = 0;
        }
    }
    tag
}

/// By the flow: of what the kernel sends by itself.
#[inline(always)]
fn without_socket(skb: *mut __sk_buff) -> u32 {
    let Some((flow, _)) = headers::flow(skb, true) else { return 0 };
    // What comes to a socket's flow without that socket is not a datagram, and no message.
    if flow.protocol as u8 != TCP {
        return 0;
    }
    match flow.owner_by_socket(skb) {
        0 => flow.owner(),
        owner => owner,
    }
}

/// Remembers the owner for packets that come when there is no socket any more, where this may be the last occasion.
#[inline(always)]
fn remember(skb: *mut __sk_buff, owner: u32) -> u32 {
    let Some((flow, tcp)) = headers::flow(skb, true) else { return owner };
    if let Some(tcp) = tcp {
        let flags: u8 = read(skb, tcp + TCP_FLAGS).unwrap_or(0);
        if flags & FIN_SYN_RST == 0 {
            return owner;
        }
    }
    flow.remember(owner);
    owner
}
