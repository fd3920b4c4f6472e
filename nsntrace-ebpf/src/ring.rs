//! A place in the ring buffer, of a size that fits the packet.
//!
//! The kernel reserves sizes that the verifier knows as constants. One size for all would waste the ring on
//! 64 KiB for an ACK, so there are classes.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_ktime_get_boot_ns, bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit,
        bpf_skb_load_bytes,
    },
};
use nsntrace_ebpf::{MAX_SNAPLEN, RecordHeader};

use crate::RING;

/// Puts header and packet into the ring buffer; false if there was no room.
#[inline(always)]
pub fn put(skb: *const __sk_buff, header: &RecordHeader) -> bool {
    match header.cap_len {
        0..=128 => put_in::<128>(skb, header),
        129..=256 => put_in::<256>(skb, header),
        257..=512 => put_in::<512>(skb, header),
        513..=1024 => put_in::<1024>(skb, header),
        // A full frame on a link with the usual MTU, and one with a few tunnel headers more.
        1025..=1536 => put_in::<1536>(skb, header),
        1537..=2048 => put_in::<2048>(skb, header),
        2049..=4096 => put_in::<4096>(skb, header),
        4097..=8192 => put_in::<8192>(skb, header),
        8193..=16384 => put_in::<16384>(skb, header),
        16385..=32768 => put_in::<32768>(skb, header),
        // The largest packet that segmentation offload makes of IPv4, with its link-layer header.
        32769..=65792 => put_in::<65792>(skb, header),
        // IPv6 "BIG TCP".
        65793.. => put_in::<{ MAX_SNAPLEN as u64 }>(skb, header),
    }
}

#[inline(always)]
fn put_in<const CLASS: u64>(skb: *const __sk_buff, header: &RecordHeader) -> bool {
    let ring = (&raw const RING).cast_mut().cast();
    let size = RecordHeader::SIZE as u64 + CLASS;
    // SAFETY: the verifier checks that the reservation is given back on every path and not left behind.
    unsafe {
        let record = bpf_ringbuf_reserve(ring, size, 0);
        if record.is_null() {
            return false;
        }
        write(record, header);
        let packet = record.byte_add(RecordHeader::SIZE);
        let len = bounded(header.cap_len, MAX_SNAPLEN);
        if len > CLASS || !load(skb, packet, len) {
            bpf_ringbuf_discard(record, 0);
            return false;
        }
        bpf_ringbuf_submit(record, 0);
    }
    true
}

/// Writes the header where its packet is to be, stamped only now: whoever is held up before it has its place would be
/// stamped long before those that user space has seen meanwhile.
///
/// # Safety
/// There is room for it, which the verifier checks.
#[inline(always)]
pub unsafe fn write(record: *mut c_void, header: &RecordHeader) {
    // SAFETY: the caller's; and the helper has no precondition.
    unsafe {
        let time = bpf_ktime_get_boot_ns();
        record.cast::<RecordHeader>().write(RecordHeader { time, ..*header });
    }
}

/// The same number, for a verifier that does not believe that it is neither 0 nor above `most`, a power of two.
///
/// Verifiers before 6.12 must see both bounds in the arithmetic. The optimiser knows them and would take it out, so
/// it is not shown what happens to the number in between.
#[inline(always)]
pub fn bounded(len: u32, most: u32) -> u64 {
    let mut below = u64::from(len).wrapping_sub(1);
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {0} */", inout(reg) below, options(nomem, nostack, preserves_flags)) };
    let mut bounded = (below & u64::from(most - 1)) + 1;
    // SAFETY: as above.
    unsafe { asm!("/* {0} */", inout(reg) bounded, options(nomem, nostack, preserves_flags)) };
    bounded
}

/// Copies the first bytes of the packet; false if it has not so many.
///
/// # Safety
/// There is room for them at `to`, which the verifier checks, and `len` is [`bounded`].
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a bounded length is small")]
pub unsafe fn load(skb: *const __sk_buff, to: *mut c_void, len: u64) -> bool {
    // SAFETY: the caller's.
    unsafe { bpf_skb_load_bytes(skb.cast(), 0, to, len as u32) == 0 }
}
