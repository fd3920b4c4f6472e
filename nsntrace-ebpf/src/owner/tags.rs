//! What is known of a socket, in the socket itself: it goes when that goes, and who accepts a connection finds there what the
//! listener's socket held.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type, bpf_sock},
    helpers::{bpf_get_listener_sock, bpf_sk_fullsock, bpf_sk_storage_get},
};
use nsntrace_ebpf::ownership::Tag;

/// A definition of the kind that says the types of key and value, which this map must have: the lengths of arrays are
/// the numbers.
#[repr(C)]
struct Definition {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Tag,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: nothing is ever read from it.
unsafe impl Sync for Definition {}

#[unsafe(link_section = ".maps")]
#[unsafe(no_mangle)]
static TAGS: Definition = Definition {
    r#type: ptr::null(),
    key: ptr::null(),
    value: ptr::null(),
    max_entries: ptr::null(),
    map_flags: ptr::null(),
};

/// The owner of the socket, or of the listener that it is a connection of; 0 if there is none.
#[inline(always)]
pub fn of(socket: *mut bpf_sock) -> u32 {
    if socket.is_null() {
        return 0;
    }
    // SAFETY: the helper takes any socket that is not null.
    let full = unsafe { bpf_sk_fullsock(socket) };
    if full.is_null() { of_listener(socket) } else { of_full(full) }
}

/// The owner of the listener that the socket is a connection of, or is; 0 if there is none.
#[inline(always)]
pub fn of_listener(socket: *mut bpf_sock) -> u32 {
    // SAFETY: the helper takes any socket that is not null.
    let listener = unsafe { bpf_get_listener_sock(socket) };
    if listener.is_null() { 0 } else { of_full(listener) }
}

#[inline(always)]
fn of_full(socket: *mut bpf_sock) -> u32 {
    let tag = get(socket);
    // SAFETY: the storage stays as long as the socket.
    if tag.is_null() { 0 } else { unsafe { (*tag).owner } }
}

/// The tag of a socket that is one in full; null if it has none.
#[inline(always)]
pub fn get(socket: *mut bpf_sock) -> *mut Tag {
    // SAFETY: the verifier checks the kinds of both.
    unsafe { bpf_sk_storage_get(map(), socket.cast(), ptr::null_mut(), 0).cast() }
}

/// Tags a socket that has no tag.
#[inline(always)]
pub fn set(socket: *mut c_void, owner: u32) -> *mut Tag {
    let mut tag = Tag { owner, remembered: 0 };
    // SAFETY: the verifier checks the kinds of all.
    unsafe {
        bpf_sk_storage_get(map(), socket, (&raw mut tag).cast(), u64::from(BPF_SK_STORAGE_GET_F_CREATE))
            .cast()
    }
}

#[inline(always)]
fn map() -> *mut c_void {
    (&raw const TAGS).cast_mut().cast()
}
