//! Reading the kernel's own memory. Where it keeps what, user space finds in the kernel's BTF.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{Global, helpers::generated::bpf_probe_read_kernel};

macro_rules! layout {
    ($($name:ident),+) => {
        $(#[unsafe(no_mangle)]
        pub static $name: Global<u32> = Global::new(0);)+
    };
}

// See ownership::names::LAYOUT.
layout!(
    TASK_TGID,
    TASK_PID,
    TASK_MM,
    TASK_SIGNAL,
    SIGNAL_LIVE,
    MM_ARG_START,
    MM_ARG_END,
    BPRM_FILENAME,
    SOCK_OWNED
);

/// A field of a structure; zeros where it cannot be read.
#[inline(always)]
pub fn field<T: Copy>(structure: u64, offset: &Global<u32>) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let from = structure + u64::from(offset.load());
    // SAFETY: the helper reads what can be read, writes all of the value, and zeros otherwise.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from as *const c_void);
        value.assume_init()
    }
}
