//! Memory of a BPF map.

use std::{num::NonZeroUsize, os::fd::BorrowedFd, ptr::NonNull};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

use crate::error::{Context, Result};

/// Shared memory of a map, unmapped when it goes out of scope.
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: the memory belongs to no thread. What others change in it is read and written by atomic operations, or
// under the rules of who owns it for the while.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of the map from `offset` on, a multiple of the page size.
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        offset: usize,
        length: usize,
        protection: ProtFlags,
    ) -> Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(nix::Error::EINVAL).context("map", "a BPF map")?;
        let offset = libc::off_t::try_from(offset).context("map", "a BPF map")?;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd, offset) };
        let start = start.context("map", "a BPF map")?;
        // No child has any business with it, and to tell each of a large ring's pages takes the kernel milliseconds.
        // SAFETY: mapped just now, and a child does not know of it.
        let _ = unsafe { madvise(start, length.get(), MmapAdvise::MADV_DONTFORK) };
        Ok(Self { start: start.cast(), length })
    }

    /// The byte at `offset`, which must lie in the mapping.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.length.get());
        // SAFETY: within the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by new, and nothing refers to it any more.
        let _ = unsafe { munmap(self.start.cast(), self.length.get()) };
    }
}
