//! The kernel side: maps and entry points.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod capture;
mod lane;
#[cfg(feature = "owner")]
#[expect(
    clippy::cast_possible_truncation,
    reason = "halves of pairs, protocols in words, and sizes that are small"
)]
mod owner;
mod ring;
mod wake;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, TC_ACT_UNSPEC},
    macros::{cgroup_skb, classifier, map},
    maps::{Array, RingBuf},
    programs::{SkBuffContext, TcContext},
};
use nsntrace_ebpf::{Chunk, Processor, direction};

use capture::{Hook, capture};

/// User space sets the size.
#[map]
static RING: RingBuf = RingBuf::with_byte_size(32 << 20, 0);

/// User space sets the size.
#[map]
static NEAR: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// User space sets the number of elements.
#[map]
static PROCESSORS: Array<Processor> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// User space sets the number of elements.
#[map]
static LANES: Array<Chunk> = Array::with_max_entries(1, BPF_F_MMAPABLE);

// An observer has no say in a packet's fate: UNSPEC goes on to the next program and to the stack.

#[classifier]
fn tc_ingress(ctx: TcContext) -> i32 {
    capture(&ctx, Hook::Tc, direction::INBOUND);
    TC_ACT_UNSPEC
}

#[classifier]
fn tc_egress(ctx: TcContext) -> i32 {
    capture(&ctx, Hook::Tc, direction::OUTBOUND);
    TC_ACT_UNSPEC
}

/// For a cgroup's packets this is the verdict that lets them pass, unless somebody else is against it.
const PASS: i32 = 1;

#[cgroup_skb]
fn cgroup_ingress(ctx: SkBuffContext) -> i32 {
    capture(&ctx, Hook::Cgroup, direction::INBOUND);
    PASS
}

#[cgroup_skb]
fn cgroup_egress(ctx: SkBuffContext) -> i32 {
    capture(&ctx, Hook::Cgroup, direction::OUTBOUND);
    PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// Helpers such as bpf_ktime_get_boot_ns are for programs under a licence compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
