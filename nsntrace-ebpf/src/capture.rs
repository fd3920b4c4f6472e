//! From a packet to a record: what is noted of it, and the books.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
    programs::TcContext,
};
use aya_log_ebpf::warn;
use nsntrace_ebpf::{RecordHeader, linktype};

use crate::{PROCESSORS, SNAPLEN, ring, stage};

/// Sends the packet to user space, or counts it as dropped.
#[inline(always)]
pub fn capture(ctx: &TcContext, direction: u8) {
    // SAFETY: it has no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(processor) = PROCESSORS.get_ptr_mut(cpu) else { return };
    let skb = ctx.skb.skb;
    let header = describe(skb, direction);

    // SAFETY: the element is this CPU's own, and TC programs on one CPU do not interrupt each other.
    unsafe {
        (*processor).counters.matched += 1;
        let is_taken = if stage::is_open(processor, &header) {
            stage::put(processor, skb, &header, cpu)
        } else {
            ring::put(skb, &header)
        };
        if is_taken {
            (*processor).counters.captured += 1;
            (*processor).counters.cut += u64::from(header.cap_len < header.wire_len);
            return;
        }
        if (*processor).counters.dropped == 0 {
            warn!(
                ctx,
                "ring buffer full: processor {} drops its first packet, {} bytes long", cpu, header.wire_len
            );
        }
        (*processor).counters.dropped += 1;
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the kernel keeps 16 bits of a tag in 32")]
fn describe(skb: *const __sk_buff, direction: u8) -> RecordHeader {
    // SAFETY: a valid context; the verifier turns these loads into loads of the kernel's own fields.
    let skb = unsafe { &*skb };
    let tagged = skb.vlan_present != 0;
    RecordHeader {
        // SAFETY: it has no precondition.
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
