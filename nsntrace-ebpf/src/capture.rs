//! From a packet to a record: what is noted of it, and the books.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_ktime_get_boot_ns, programs::TcContext};
use aya_log_ebpf::warn;
use nsntrace_ebpf::{RecordHeader, linktype};

use crate::{COUNTERS, SNAPLEN, ring};

/// Copies the packet into the ring buffer, or counts it as dropped.
#[inline(always)]
pub fn capture(ctx: &TcContext, direction: u8) {
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: the element is this CPU's own, and programs on one CPU do not interrupt each other here.
    let counters = unsafe { &mut *counters };
    let skb = ctx.skb.skb;
    let header = describe(skb, direction);

    counters.seen += 1;
    if ring::put(skb, &header) {
        counters.captured += 1;
        counters.cut += u64::from(header.cap_len < header.wire_len);
    } else {
        if counters.dropped == 0 {
            warn!(
                ctx,
                "ring buffer full: this processor drops its first packet, {} bytes long", header.wire_len
            );
        }
        counters.dropped += 1;
    }
}

#[inline(always)]
fn describe(skb: *const __sk_buff, direction: u8) -> RecordHeader {
    // SAFETY: a valid context; the verifier turns these loads into loads of the kernel's own fields.
    let skb = unsafe { &*skb };
    let tagged = skb.vlan_present != 0;
    RecordHeader {
        time: unsafe { bpf_ktime_get_boot_ns() },
        wire_len: skb.len,
        cap_len: skb.len.min(SNAPLEN.load()),
        owner: 0,
        ifindex: skb.ifindex,
        vlan_tci: if tagged { skb.vlan_tci as u16 } else { 0 },
        vlan_proto: if tagged { u16::from_be(skb.vlan_proto as u16) } else { 0 },
        linktype: linktype::EN10MB,
        direction,
        reserved: 0,
    }
}
