//! What holds a program to an interface, from Linux 6.6 on.
//!
//! aya makes such links too, but keeps their descriptors to itself, and these are to be handed on at the end: who closes the
//! last one waits for whoever is changing the host's links.

use std::{
    mem,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use aya::util::KernelVersion;
use aya_obj::generated::{
    bpf_attach_type::{BPF_TCX_EGRESS, BPF_TCX_INGRESS},
    bpf_attr,
    bpf_cmd::BPF_LINK_CREATE,
};

use super::Direction;
use crate::descriptors::made;

/// Behind those that are there.
const BPF_F_AFTER: u32 = 1 << 4;

/// Whether the kernel has them. Before, programs are attached to a qdisc that must be there.
pub(super) fn is_there() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// Attaches a program to a direction of the interface of that number in the present network namespace. It stays until the
/// link is closed, or the interface goes away.
///
/// # Errors
/// What the kernel says.
pub(super) fn attach(program: BorrowedFd<'_>, interface: u32, direction: Direction) -> nix::Result<OwnedFd> {
    // SAFETY: it is plain data, and the kernel wants zeros for what is not said.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attributes.link_create.__bindgen_anon_2.target_ifindex = interface;
    attributes.link_create.flags = BPF_F_AFTER;
    attributes.link_create.attach_type = match direction {
        Direction::In => BPF_TCX_INGRESS,
        Direction::Out => BPF_TCX_EGRESS,
    } as u32;
    // SAFETY: the kernel reads the attributes, whose size it is told, and makes a descriptor.
    unsafe {
        made(libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const attributes, size_of_val(&attributes)))
    }
}
