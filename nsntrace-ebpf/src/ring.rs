//! A place in a ring buffer, of a size that fits the packet.
//!
//! The kernel reserves sizes that the verifier knows as constants. One size for all would waste the ring on
//! 64 KiB for an ACK, so there are classes.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit, bpf_skb_load_bytes},
};
use nsntrace_ebpf::{MAX_SNAPLEN, PREFIX, Processor, RecordHeader};

use crate::{NEAR, RING, capture::Packet, wake};

/// Bytes of a cache line. To where none begins, some processors copy half as fast.
const LINE: u64 = 64;

/// From which class on a packet is worth a gap.
const LONG: u64 = 1024;

/// Bytes of a record from the beginning of a cache line to where its packet is without a gap.
const HEADERS: u64 = (PREFIX + RecordHeader::SIZE) as u64;

/// Puts header and packet into a ring buffer; false if there was no room.
///
/// On its own, so that what a small packet runs through lies close together: between two large ones a processor's caches have
/// lost it, and each line of it costs nanoseconds.
///
/// # Safety
/// `processor` is an element.
#[inline(never)]
pub unsafe fn put(processor: *const Processor, packet: &Packet) -> bool {
    match packet.cap_len {
        0..=128 => put_in::<128>(processor, packet),
        129..=256 => put_in::<256>(processor, packet),
        257..=512 => put_in::<512>(processor, packet),
        513..=1024 => put_in::<1024>(processor, packet),
        // A full frame on a link with the usual MTU, and one with a few tunnel headers more.
        1025..=1536 => put_in::<1536>(processor, packet),
        1537..=2048 => put_in::<2048>(processor, packet),
        2049..=4096 => put_in::<4096>(processor, packet),
        4097..=8192 => put_in::<8192>(processor, packet),
        8193..=16384 => put_in::<16384>(processor, packet),
        16385..=32768 => put_in::<32768>(processor, packet),
        // The largest packet that segmentation offload makes of IPv4, with its link-layer header.
        32769..=65792 => put_in::<65792>(processor, packet),
        // IPv6 "BIG TCP".
        65793.. => put_in::<{ MAX_SNAPLEN as u64 }>(processor, packet),
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a gap is small")]
fn put_in<const CLASS: u64>(processor: *const Processor, packet: &Packet) -> bool {
    let largest_gap = if CLASS < LONG { 0 } else { LINE - 1 };
    // Whole cache lines, so that each record begins where the first one does.
    let size = (HEADERS + largest_gap + CLASS).next_multiple_of(LINE) - PREFIX as u64;
    // SAFETY: the verifier checks that the reservation is given back on every path and not left behind.
    unsafe {
        let record = reserve(size);
        if record.is_null() {
            return false;
        }
        let gap = gap(packet.skb) & largest_gap;
        packet.write_header(record, gap as u8);
        let bytes = record.byte_add(RecordHeader::SIZE + gap as usize);
        let len = bounded(packet.cap_len, MAX_SNAPLEN);
        let wakes = wake::with(processor, record, size + PREFIX as u64);
        if len > CLASS || !load(packet.skb, bytes, len) {
            bpf_ringbuf_discard(record, wakes);
            return false;
        }
        bpf_ringbuf_submit(record, wakes);
    }
    true
}

/// A record of so many bytes; null if there is no room.
///
/// A packet is copied faster to where the one before the last few was: those places are in the processor's cache, and their
/// addresses in its table of pages, where those of many megabytes are not.
///
/// # Safety
/// It is given back on every path, which the verifier checks.
#[inline(always)]
pub unsafe fn reserve(size: u64) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe {
        let record = bpf_ringbuf_reserve((&raw const NEAR).cast_mut().cast(), size, 0);
        if record.is_null() {
            bpf_ringbuf_reserve((&raw const RING).cast_mut().cast(), size, 0)
        } else {
            record
        }
    }
}

/// How many bytes to leave out, so that what is copied from the pages of a packet comes to lie on whole cache lines: behind
/// what lies in one piece, which are its headers, or all of it.
#[inline(always)]
fn gap(skb: *const __sk_buff) -> u64 {
    // SAFETY: a valid context.
    let [start, end, len] = unsafe { [(*skb).data, (*skb).data_end, (*skb).len] }.map(u64::from);
    let piece = end.wrapping_sub(start);
    let headers = if piece < len { piece } else { 0 };
    0_u64.wrapping_sub(HEADERS + headers) % LINE
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
