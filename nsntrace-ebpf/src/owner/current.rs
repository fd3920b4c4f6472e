//! Who runs just now.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{bpf_get_current_task, bpf_skc_to_tcp_sock},
};

use super::{
    memory::{SOCK_OWNED, TASK_TGID, field},
    processes,
};

/// Sockets of these types and this family are told apart.
const STREAM: u32 = 1;
const RAW: u32 = 3;
const AF_PACKET: u32 = 17;

/// Number of the running process, for programs that may not ask for it.
#[inline(always)]
fn process() -> u32 {
    // SAFETY: it has no precondition.
    field(unsafe { bpf_get_current_task() }, &TASK_TGID)
}

/// Number of the process that sends by this socket just now; 0 where it is none that is followed, or where nobody is known
/// to send. `owner` is the present owner, 0 if there is none.
///
/// Packets are sent on behalf of others, too: a connection's, when an answer or a timer comes, whoever runs then. Its owner
/// is told by the lock that it holds on the socket meanwhile. The kernel's own sockets, from which it answers by
/// itself, are raw ones that nobody has made.
#[inline(always)]
pub fn sender(socket: *mut bpf_sock, owner: u32) -> u32 {
    // SAFETY: a socket in full; the verifier turns these loads into loads of the kernel's own fields.
    let (kind, family) = unsafe { ((*socket).type_, (*socket).family) };
    match kind {
        STREAM if !is_locked(socket) => return 0,
        RAW if owner == 0 && family != AF_PACKET => return 0,
        _ => {}
    }
    let pid = process();
    // Who ends closes its connections after its end was noted.
    let is_followed = || if kind == STREAM { processes::get(pid) != 0 } else { processes::is_alive(pid) };
    if pid == owner || is_followed() { pid } else { 0 }
}

/// Whether a process has the socket for itself.
#[inline(always)]
fn is_locked(socket: *mut bpf_sock) -> bool {
    // SAFETY: the helper takes any socket that is not null; the kernel's BTF says that the field is there.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(socket.cast());
        !tcp.is_null() && tcp.cast::<u8>().add(SOCK_OWNED.load() as usize).cast::<u32>().read_volatile() != 0
    }
}
