//! The way of small packets: into a ring of the CPU's own, where nobody else writes and nothing is to be reserved.

use core::arch::asm;

use aya_ebpf::{Global, bindings::__sk_buff};
use nsntrace_ebpf::{AHEAD, BEGUN, CHUNK, LANE_PACKET, LANE_RECORD, Processor, RecordHeader, ahead, behind};

use crate::{
    LANES,
    capture::Packet,
    ring::{bounded, load},
    wake,
};

#[unsafe(no_mangle)]
static TAKES_AHEAD: Global<u32> = Global::new(0);

/// Appends header and packet, if it is small; false if there is no room for it.
///
/// # Safety
/// `processor` is this CPU's, and no other program of the capture interrupts this one.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower bits are what counts")]
pub unsafe fn put(processor: *mut Processor, packet: &Packet, cpu: u32) -> bool {
    if !(1..=LANE_PACKET).contains(&packet.cap_len) {
        return false;
    }
    // SAFETY: the verifier checks every place against the size of the element. User space may change its words at any time.
    unsafe {
        let room = (&raw const (*processor).room).read_volatile();
        let head = (*processor).head;
        let in_use = head.wrapping_sub((&raw const (*processor).tail).read_volatile());
        if in_use + (LANE_RECORD + 2 * AHEAD) as u64 > u64::from(room) {
            return false;
        }
        let chunks = room / CHUNK as u32;
        let number = (head / CHUNK as u64) as u32 & (chunks - 1);
        let Some(chunk) = LANES.get_ptr_mut(cpu * chunks + number) else { return false };
        let at = head as usize % CHUNK;
        // It never is, see behind; the verifier wants to see it.
        if at > CHUNK - LANE_RECORD {
            return false;
        }
        let record = chunk.cast::<u8>().add(at);
        let len = bounded(packet.cap_len, LANE_PACKET);
        (*processor).head = head | BEGUN;
        in_order();
        packet.write_header(record.cast(), 0);
        let bytes = record.add(RecordHeader::SIZE);
        let is_there = copy(packet.skb, bytes, len) || load(packet.skb, bytes.cast(), len);
        in_order();
        if !is_there {
            (*processor).head = head;
            return false;
        }
        let next = behind(head, RecordHeader::SIZE as u64 + len);
        (*processor).head = next;
        // Two parts behind the longest record are free, see above.
        if TAKES_AHEAD.load() != 0
            && let Some(part) = ahead(at, at + RecordHeader::SIZE + len as usize)
        {
            take(chunk.cast(), part);
        }
        wake::for_lane(room, in_use, head, next);
    }
    true
}

/// Writes to each cache line of a part of the chunk.
///
/// # Safety
/// Nothing is there that user space has yet to read.
#[inline(always)]
unsafe fn take(chunk: *mut u8, part: usize) {
    const { assert!(AHEAD == 16 * 64, "a cache line for each of these") };
    macro_rules! line {
        ($($at:literal)*) => { $(
            // SAFETY: within the chunk, and the caller's.
            unsafe { chunk.add(part + $at).cast::<u64>().write_volatile(0) };
        )* }
    }
    line!(0 64 128 192 256 320 384 448 512 576 640 704 768 832 896 960);
}

/// Copies a packet that lies in one piece and is 32 to 128 bytes long by its two ends, which overlap; false for others.
/// Most are so, and the helper that takes all would cost as much as the rest of the record.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
unsafe fn copy(skb: *const __sk_buff, to: *mut u8, len: u64) -> bool {
    // SAFETY: the caller's; the verifier compares what is read with the packet's end.
    unsafe {
        match len {
            32..=64 => ends::<4>(skb, to, len),
            65..=128 => ends::<8>(skb, to, len),
            _ => false,
        }
    }
}

/// Copies the first and the last words of a packet of at most twice so many; false where not all of it can be read.
///
/// # Safety
/// As for [`load`], and there are so many words.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a bounded length is small")]
unsafe fn ends<const WORDS: usize>(skb: *const __sk_buff, to: *mut u8, len: u64) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let (start, end) = ((*skb).data as usize, (*skb).data_end as usize);
        // As in bounded, and so that the place which is compared is the place from which is read.
        let mut rest = len as usize - WORDS * 8;
        asm!("/* {0} */", inout(reg) rest, options(nomem, nostack, preserves_flags));
        rest &= WORDS * 16 - 1;
        let mut last = start + rest;
        asm!("/* {0} */", inout(reg) last, options(nomem, nostack, preserves_flags));
        if start + WORDS * 8 > end || last + WORDS * 8 > end {
            return false;
        }
        words::<WORDS>(start, to);
        words::<WORDS>(last, to.add(rest));
    }
    true
}

/// Copies words, which may lie anywhere: a compiler that does not know that the kernel takes care of it would do so by the
/// byte.
#[inline(always)]
unsafe fn words<const WORDS: usize>(from: usize, to: *mut u8) {
    macro_rules! word {
        ($($at:literal)*) => { $(
            // SAFETY: the caller has asked for room and packet.
            unsafe { asm!(
                concat!("{word} = *(u64 *)({from} + ", $at, ")"),
                concat!("*(u64 *)({to} + ", $at, ") = {word}"),
                from = in(reg) from, to = in(reg) to, word = out(reg) _, options(nostack)
            ) };
        )* }
    }
    word!(0 8 16 24);
    if WORDS == 8 {
        word!(32 40 48 56);
    }
}

/// The compiler moves no access to memory across this. Where processors keep stores in order, as x86 does, user space
/// sees them so; elsewhere it never opens a lane.
#[inline(always)]
fn in_order() {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* in order */", options(nostack, preserves_flags)) };
}
