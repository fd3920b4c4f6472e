//! When the reader is woken. It comes by itself before long: whoever wakes it spends the traced program's time, so that is
//! done only for one that sleeps, and where much has come since the last time.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    Global,
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ringbuf_discard,
};
use nsntrace_ebpf::{PREFIX, Processor, passes};

use crate::ring::reserve;

/// Bytes of a ring buffer, a power of two, which user space sets.
#[unsafe(no_mangle)]
static MUCH: Global<u64> = Global::new(1 << 10);

/// Bytes of a record that is there to wake the reader: as all are, a whole cache line.
const NOTHING: u64 = 64 - PREFIX as u64;

/// How a record of so many bytes in a ring buffer, its prefix included, is handed over. One in [`MUCH`] bytes of them wakes the
/// reader.
///
/// # Safety
/// `processor` is an element.
#[inline(always)]
pub unsafe fn with(processor: *const Processor, record: *const c_void, size: u64) -> u64 {
    // SAFETY: the caller's; user space may change the word at any time.
    if unsafe { (&raw const (*processor).room).read_volatile() } == 0 {
        // The kernel wakes whoever has read all but this.
        return 0;
    }
    // A place is as good as a position: a ring buffer has a multiple of these bytes, and each of them is in one record. How far
    // it is from any other place the verifier lets be known.
    let (mut place, much) = (record as u64, &raw const MUCH as u64);
    // SAFETY: a subtraction.
    unsafe { asm!("{0} -= {1}", inout(reg) place, in(reg) much, options(nomem, nostack)) };
    let wakes = passes(place, place + size, MUCH.load());
    u64::from(if wakes { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

/// Wakes the reader when a lane of so many bytes, of which `in_use` wait, is half full, and at each eighth from there on.
#[inline(always)]
pub fn for_lane(room: u32, in_use: u64, head: u64, next: u64) {
    let room = u64::from(room);
    if !passes(head, next, room / 8) || in_use < room / 2 {
        return;
    }
    // SAFETY: what is reserved is given back. Where there is no room the reader has been woken.
    unsafe {
        let record = reserve(NOTHING);
        if !record.is_null() {
            bpf_ringbuf_discard(record, u64::from(BPF_RB_FORCE_WAKEUP));
        }
    }
}
