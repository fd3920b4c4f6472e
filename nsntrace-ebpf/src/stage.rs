//! The way of small packets: many of them pass the ring buffer as one.

use core::arch::asm;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_ringbuf_output};
use nsntrace_ebpf::{ALIGN, Processor, RecordHeader, STAGE_BYTES, STAGED_PACKET, Stage};

use crate::{
    RING,
    ring::{bounded, load, write},
};

/// The longest record that is staged.
const RECORD: u64 = RecordHeader::SIZE as u64 + STAGED_PACKET as u64;

/// Whether the packet is one to be staged.
///
/// # Safety
/// `processor` is this CPU's.
#[inline(always)]
pub unsafe fn is_open(processor: *mut Processor, header: &RecordHeader) -> bool {
    // SAFETY: the caller's.
    header.cap_len <= STAGED_PACKET && unsafe { (*processor).asleep == 0 }
}

/// Appends header and packet; false if the stage was full and so is the ring buffer. What is staged stays then, for
/// user space may have read it.
///
/// # Safety
/// `processor` is this CPU's.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a usize has 64 bits here")]
pub unsafe fn put(processor: *mut Processor, skb: *const __sk_buff, header: &RecordHeader, cpu: u32) -> bool {
    // SAFETY: the verifier checks every place against the size of the element.
    unsafe {
        let stage = &raw mut (*processor).stage;
        let mut used = (*stage).used;
        if used > STAGE_BYTES as u64 - RECORD {
            if !pass_on(stage, cpu) {
                return false;
            }
            used = 0;
        }
        let record = (&raw mut (*stage).records).cast::<u8>().add(used as usize);
        write(record.cast(), header);
        let packet = record.add(RecordHeader::SIZE);
        let len = bounded(header.cap_len, STAGED_PACKET);
        if !load(skb, packet.cast(), len) {
            return false;
        }
        in_order();
        let next = used + (RecordHeader::SIZE as u64 + len).next_multiple_of(ALIGN as u64);
        (*stage).used = next;
    }
    true
}

/// Puts the stage into the ring buffer and begins a new one; false if there was no room.
#[inline(always)]
unsafe fn pass_on(stage: *mut Stage, cpu: u32) -> bool {
    let ring = (&raw const RING).cast_mut().cast();
    // SAFETY: as in put.
    unsafe {
        (*stage).cpu = u64::from(cpu);
        let used = (*stage).used;
        if used > STAGE_BYTES as u64 {
            return false;
        }
        if bpf_ringbuf_output(ring, stage.cast(), Stage::HEADER as u64 + used, 0) != 0 {
            return false;
        }
        // In this order, see Stage.
        (*stage).used = 0;
        in_order();
        (*stage).generation += 1;
        in_order();
    }
    true
}

/// The compiler moves no access to memory across this. Where processors keep stores in order, as x86 does, user space
/// sees them so; elsewhere it never opens a stage.
#[inline(always)]
fn in_order() {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* in order */", options(nostack, preserves_flags)) };
}
