//! Whose packet it is.

mod current;
mod egress;
mod flow;
mod headers;
mod ingress;
mod memory;
pub mod processes;
mod sock_create;
mod tags;
mod tree;

use aya_ebpf::bindings::__sk_buff;
use nsntrace_ebpf::direction::OUTBOUND;

use crate::capture::Hook;

/// Number of the process that the packet belongs to; 0 where it is not known.
#[inline(always)]
pub fn find(skb: *mut __sk_buff, hook: Hook, direction: u8) -> u32 {
    match (hook, direction) {
        (Hook::Tc, OUTBOUND) => egress::owner(skb),
        (Hook::Tc, _) => ingress::owner(skb),
        (Hook::Cgroup, OUTBOUND) => egress::owner_by_socket(skb),
        (Hook::Cgroup, _) => tags::of(socket(skb)),
    }
}

/// The packet's socket; null if it has none.
#[inline(always)]
fn socket(skb: *mut __sk_buff) -> *mut aya_ebpf::bindings::bpf_sock {
    // SAFETY: a valid context.
    unsafe { (*skb).__bindgen_anon_2.sk }
}
