//! Flows: by theirs a packet finds its socket, and where there is none any more, or never was one, who had the flow.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_CURRENT_NETNS, bpf_sock_tuple},
    helpers::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
    macros::map,
    maps::LruHashMap,
};

use super::{
    headers::{TCP, UDP},
    tags,
};

/// Who had a flow. Addresses and ports are in network order, and those of IPv4 end with zeros.
#[map]
static FLOWS: LruHashMap<Flow, u32> = LruHashMap::with_max_entries(16384, 0);

/// A flow, seen from the program. It has no gaps: all of it is the key.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Flow {
    pub remote: [u32; 4],
    pub local: [u32; 4],
    pub remote_port: u16,
    pub local_port: u16,
    pub protocol: u32,
}

#[repr(C)]
struct Tuple4 {
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
}

#[repr(C)]
struct Tuple6 {
    source: [u32; 4],
    destination: [u32; 4],
    source_port: u16,
    destination_port: u16,
}

impl Flow {
    /// The owner of the flow's socket; 0 if there is none.
    #[inline(always)]
    pub fn owner_by_socket(&self, skb: *mut __sk_buff) -> u32 {
        let Self { remote, local, remote_port, local_port, .. } = *self;
        // A flow over IPv6 between addresses that end with zeros is not looked for.
        let is_v4 = remote[1] | remote[2] | remote[3] | local[1] | local[2] | local[3] == 0;
        if is_v4 {
            let mut tuple = Tuple4 {
                source: remote[0],
                destination: local[0],
                source_port: remote_port,
                destination_port: local_port,
            };
            self.look_up(skb, (&raw mut tuple).cast(), size_of::<Tuple4>() as u32)
        } else {
            let mut tuple = Tuple6 {
                source: remote,
                destination: local,
                source_port: remote_port,
                destination_port: local_port,
            };
            self.look_up(skb, (&raw mut tuple).cast(), size_of::<Tuple6>() as u32)
        }
    }

    #[inline(always)]
    fn look_up(&self, skb: *mut __sk_buff, tuple: *mut bpf_sock_tuple, size: u32) -> u32 {
        let here = i64::from(BPF_F_CURRENT_NETNS).cast_unsigned();
        // SAFETY: the tuple has its size, and the socket is given back on every way.
        unsafe {
            let socket = match self.protocol as u8 {
                TCP => bpf_skc_lookup_tcp(skb.cast(), tuple, size, here, 0),
                UDP => bpf_sk_lookup_udp(skb.cast(), tuple, size, here, 0),
                _ => return 0,
            };
            if socket.is_null() {
                return 0;
            }
            let owner = tags::of(socket);
            bpf_sk_release(socket.cast());
            owner
        }
    }

    /// Who had the flow; 0 if that is not known.
    #[inline(always)]
    pub fn owner(&self) -> u32 {
        // SAFETY: a word is read in one step.
        unsafe { FLOWS.get(self.key()) }.copied().unwrap_or(0)
    }

    /// Remembers who has the flow.
    #[inline(always)]
    pub fn remember(&self, owner: u32) {
        if self.owner() != owner {
            // Where it fails, packets that come late have no owner.
            let _ = FLOWS.insert(self.key(), owner, 0);
        }
    }

    /// Forgets who had the flow.
    #[inline(always)]
    pub fn forget(&self) {
        // It fails where it was not known.
        let _ = FLOWS.remove(self.key());
    }

    /// A socket for datagrams has one flow with all.
    #[inline(always)]
    fn key(&self) -> Self {
        if self.protocol as u8 == UDP { Self { remote: [0; 4], remote_port: 0, ..*self } } else { *self }
    }
}
