//! What loads the kernel side, without what aya would do for others.

use aya::EbpfLoader;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::chroot,
};

use crate::own_thread;

/// A folder that is everywhere and has nothing below it that aya looks for.
const NOWHERE: &str = "/proc/self/fdinfo";

/// A loader that does not know the kernel's types. Nothing in our objects depends on them, but a loader reads and parses
/// all of them when it is made, which takes a third of the time that a short trace takes, and 20 MiB. Only where it does
/// not find them it goes on without.
pub(super) fn without_types() -> EbpfLoader<'static> {
    let loader = own_thread::run(|| {
        // Where that is not allowed, all is as it always is.
        let _ = unshare(CloneFlags::CLONE_FS).and_then(|()| chroot(NOWHERE));
        EbpfLoader::new()
    });
    loader.unwrap_or_else(|_| EbpfLoader::new())
}
