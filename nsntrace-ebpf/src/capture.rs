//! From a packet to a record: what is noted of it, and the books.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    EbpfContext, Global,
    bindings::__sk_buff,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
};
use aya_log_ebpf::warn;
use nsntrace_ebpf::{RecordHeader, linktype};

use crate::{PROCESSORS, lane, ring};

/// Bytes of a VLAN tag, which goes back into its frame.
const TAG: u32 = 4;

/// Where a program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// At an interface, for its frames. Programs on one CPU do not interrupt each other here, unless the kernel is a real-time
    /// one.
    Tc,
    /// At a cgroup's sockets, for packets without a link-layer header. Programs run in the middle of system calls here:
    /// another may come in between on the same CPU.
    Cgroup,
}

/// User space knows it.
#[unsafe(no_mangle)]
static IS_REALTIME: Global<u32> = Global::new(0);

/// A packet on its way to user space.
#[derive(Clone, Copy)]
pub struct Packet {
    /// What the kernel knows of it.
    pub skb: *mut __sk_buff,
    /// How many of its bytes are kept.
    pub cap_len: u32,
    owner: u32,
    hook: Hook,
    direction: u8,
}

/// Sends the packet to user space, or counts it as dropped.
#[inline(always)]
pub fn capture(ctx: &impl EbpfContext, hook: Hook, direction: u8) {
    // SAFETY: it has no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(processor) = PROCESSORS.get_ptr_mut(cpu) else { return };
    // SAFETY: the element is this CPU's, and user space writes whole words.
    let snaplen = unsafe { (*processor).snaplen };
    if snaplen == 0 {
        return;
    }
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
    // SAFETY: a valid context.
    let wire_len = unsafe { (*skb).len };
    let packet = Packet { skb, cap_len: wire_len.min(snaplen), owner, hook, direction };

    // SAFETY: the element is this CPU's own: where programs do not interrupt each other, for plain stores and for the
    // lane; elsewhere for what is done in one step.
    unsafe {
        let counters = &raw mut (*processor).counters;
        count(&raw mut (*counters).matched, hook);
        if hook == Hook::Tc && lane::put(processor, &packet, cpu) || ring::put(processor, &packet) {
            count(&raw mut (*counters).captured, hook);
            if snaplen < wire_len + TAG && (snaplen < wire_len || packet.is_tagged()) {
                count(&raw mut (*counters).cut, hook);
            }
            return;
        }
        if (*counters).dropped == 0 {
            warn!(ctx, "ring buffer full: processor {} drops its first packet, {} bytes long", cpu, wire_len);
        }
        count(&raw mut (*counters).dropped, hook);
    }
}

/// Raises a counter.
///
/// # Safety
/// It is this CPU's, or others too raise it in one step.
#[inline(always)]
pub unsafe fn count(counter: *mut u64, hook: Hook) {
    // SAFETY: the caller's. The target's core has no operation in one step that kernels before 5.12 know.
    unsafe {
        match hook {
            Hook::Tc if IS_REALTIME.load() == 0 => *counter += 1,
            _ => {
                asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64, options(nostack));
            }
        }
    }
}

impl Packet {
    /// Whether the kernel has taken a VLAN tag out of it.
    #[inline(always)]
    fn is_tagged(&self) -> bool {
        // SAFETY: a valid context.
        self.hook == Hook::Tc && unsafe { (*self.skb).vlan_present } != 0
    }

    /// Writes the header where the packet is to be. `time` is taken only when there is a place: who is held up before it
    /// has one would be stamped long before those that user space has seen meanwhile.
    ///
    /// Field by field from where the kernel has it, without a copy on the stack. The packet follows after `gap` bytes.
    ///
    /// # Safety
    /// There is room for it, which the verifier checks.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the kernel keeps 16 bits of a tag in 32")]
    pub unsafe fn write_header(&self, record: *mut c_void, gap: u8) {
        // SAFETY: the helper has no precondition; a valid context, of which the verifier turns these loads into loads of
        // the kernel's own fields.
        let (time, skb) = unsafe { (bpf_ktime_get_boot_ns(), &*self.skb) };
        let tagged = self.is_tagged();
        let header = RecordHeader {
            time,
            wire_len: skb.len,
            cap_len: self.cap_len,
            owner: self.owner,
            ifindex: skb.ifindex,
            vlan_tci: if tagged { skb.vlan_tci as u16 } else { 0 },
            vlan_proto: if tagged { u16::from_be(skb.vlan_proto as u16) } else { 0 },
            linktype: if self.hook == Hook::Tc { linktype::EN10MB } else { linktype::RAW },
            direction: self.direction,
            gap,
        };
        // SAFETY: the caller's.
        unsafe { record.cast::<RecordHeader>().write(header) };
    }
}
