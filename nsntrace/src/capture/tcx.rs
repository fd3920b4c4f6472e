//! What holds a program to an interface, from Linux 6.6 on.
//!
//! aya makes such links too, but keeps their descriptors to itself. Here a program can be put in another's place, and the
//! descriptors are handed on at the end: who closes the last one waits for whoever is changing the host's links.

use std::{
    mem,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use aya::util::KernelVersion;
use aya_obj::generated::{
    bpf_attach_type::{BPF_TCX_EGRESS, BPF_TCX_INGRESS},
    bpf_attr,
    bpf_cmd::{self, BPF_LINK_CREATE, BPF_LINK_UPDATE, BPF_PROG_LOAD},
    bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
};
use nix::errno::Errno;

use super::{Direction, hook::Hook};
use crate::{
    descriptors::made,
    filter::ebpf::{Instruction, R0, Width::Bits32, operation},
};

/// Behind those that are there.
const BPF_F_AFTER: u32 = 1 << 4;

/// Whether the kernel has them. Before, programs are attached to a qdisc that must be there.
pub(super) fn is_there() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// A program that leaves each packet to others.
///
/// # Errors
/// What the kernel says.
pub(super) fn idle() -> nix::Result<OwnedFd> {
    let verdict = Hook::Interface.verdict();
    let code = [Instruction::calculate(Bits32, operation::MOV, R0, verdict), Instruction::exit()];
    let mut attributes = nothing();
    // SAFETY: the part of the union that the command reads.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.prog_type = BPF_PROG_TYPE_SCHED_CLS as u32;
    program.insns = code.as_ptr() as u64;
    program.insn_cnt = 2;
    program.license = c"Dual MIT/GPL".as_ptr() as u64;
    // SAFETY: code and licence are there until it returns, and it makes a descriptor.
    unsafe { made(call(BPF_PROG_LOAD, &attributes)) }
}

/// Attaches a program to a direction of the interface of that number in the present network namespace. It stays until the
/// link is closed, or the interface goes away.
///
/// # Errors
/// What the kernel says.
pub(super) fn attach(program: BorrowedFd<'_>, interface: u32, direction: Direction) -> nix::Result<OwnedFd> {
    let mut attributes = nothing();
    attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attributes.link_create.__bindgen_anon_2.target_ifindex = interface;
    attributes.link_create.flags = BPF_F_AFTER;
    attributes.link_create.attach_type = match direction {
        Direction::In => BPF_TCX_INGRESS,
        Direction::Out => BPF_TCX_EGRESS,
    } as u32;
    // SAFETY: it makes a descriptor.
    unsafe { made(call(BPF_LINK_CREATE, &attributes)) }
}

/// Puts this program in the place of the one that the link holds.
///
/// # Errors
/// What the kernel says.
pub(super) fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> nix::Result<()> {
    let mut attributes = nothing();
    attributes.link_update.link_fd = link.as_raw_fd().cast_unsigned();
    attributes.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd().cast_unsigned();
    // SAFETY: there are only numbers in it.
    Errno::result(unsafe { call(BPF_LINK_UPDATE, &attributes) }).map(drop)
}

fn nothing() -> bpf_attr {
    // SAFETY: it is plain data, and the kernel wants zeros for what is not said.
    unsafe { mem::zeroed() }
}

/// # Safety
/// What the attributes point to is there until it returns.
unsafe fn call(command: bpf_cmd, attributes: &bpf_attr) -> libc::c_long {
    // SAFETY: the kernel reads the attributes, whose size it is told, and the caller's.
    unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of_val(attributes)) }
}
