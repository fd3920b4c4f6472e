//! From a packet to a record: what is noted of it, and the books.

use core::arch::asm;

use aya_ebpf::{EbpfContext, bindings::__sk_buff, helpers::bpf_get_smp_processor_id};
use aya_log_ebpf::warn;
use nsntrace_ebpf::{RecordHeader, linktype};

use crate::{PROCESSORS, SNAPLEN, ring, stage};

/// Where a program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// At an interface, for its frames. Programs on one CPU do not interrupt each other here.
    Tc,
    /// At a cgroup's sockets, for packets without a link-layer header. Programs run in the middle of system calls here:
    /// another may come in between on the same CPU.
    Cgroup,
}

/// Sends the packet to user space, or counts it as dropped.
#[inline(always)]
pub fn capture(ctx: &impl EbpfContext, hook: Hook, direction: u8) {
    // SAFETY: it has no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(processor) = PROCESSORS.get_ptr_mut(cpu) else { return };
    let skb = ctx.as_ptr().cast::<__sk_buff>();
    #[cfg(feature = "owner")]
    let owner = crate::owner::find(skb, hook, direction);
    #[cfg(not(feature = "owner"))]
    let owner = 0;
    #[cfg(feature = "owner")]
    if !crate::owner::processes::is_wanted(owner) {
        // SAFETY: the element is this CPU's own, as below.
        unsafe { count(&raw mut (*processor).counters.filtered, hook) };
        return;
    }
    let header = describe(skb, hook, direction, owner);

    // SAFETY: the element is this CPU's own: where programs do not interrupt each other, for plain stores and for the
    // stage; elsewhere for what is done in one step.
    unsafe {
        let counters = &raw mut (*processor).counters;
        count(&raw mut (*counters).matched, hook);
        let is_taken = if hook == Hook::Tc && stage::is_open(processor, &header) {
            stage::put(processor, skb, &header, cpu)
        } else {
            ring::put(skb, &header)
        };
        if is_taken {
            count(&raw mut (*counters).captured, hook);
            if header.cap_len < header.wire_len {
                count(&raw mut (*counters).cut, hook);
            }
            return;
        }
        if (*counters).dropped == 0 {
            warn!(
                ctx,
                "ring buffer full: processor {} drops its first packet, {} bytes long", cpu, header.wire_len
            );
        }
        count(&raw mut (*counters).dropped, hook);
    }
}

/// Raises a counter.
///
/// # Safety
/// It is this CPU's.
#[inline(always)]
unsafe fn count(counter: *mut u64, hook: Hook) {
    // SAFETY: the caller's. The target's core has no operation in one step that kernels before 5.12 know.
    unsafe {
        match hook {
            Hook::Tc => *counter += 1,
            Hook::Cgroup => {
                asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64, options(nostack));
            }
        }
    }
}

/// All but the time.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the kernel keeps 16 bits of a tag in 32")]
fn describe(skb: *const __sk_buff, hook: Hook, direction: u8, owner: u32) -> RecordHeader {
    // SAFETY: a valid context; the verifier turns these loads into loads of the kernel's own fields.
    let skb = unsafe { &*skb };
    let tagged = hook == Hook::Tc && skb.vlan_present != 0;
    RecordHeader {
        time: 0,
        wire_len: skb.len,
        cap_len: skb.len.min(SNAPLEN.load()),
        owner,
        ifindex: skb.ifindex,
        vlan_tci: if tagged { skb.vlan_tci as u16 } else { 0 },
        vlan_proto: if tagged { u16::from_be(skb.vlan_proto as u16) } else { 0 },
        linktype: if hook == Hook::Tc { linktype::EN10MB } else { linktype::RAW },
        direction,
        reserved: 0,
    }
}
