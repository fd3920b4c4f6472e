//! Who makes a socket.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::cgroup_sock,
    programs::SockContext,
};

use super::{processes, tags};

/// Anyone may.
const ALLOWED: i32 = 1;

#[cgroup_sock(sock_create)]
fn sock_create(ctx: SockContext) -> i32 {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    tags::set(ctx.as_ptr(), pid);
    // One that has come into the cgroup, or was there before.
    if !processes::is_alive(pid)
        && let Ok(name) = bpf_get_current_comm()
    {
        processes::follow(pid, &name);
    }
    ALLOWED
}
