//! The two ring buffers: a packet goes into the near one, and where that is full into the far one.
//!
//! The near one is small: what is written there is in the processors' caches still when its turn comes again. The far one, in
//! which nothing is most of the time, has room for whatever comes while the reader is held up.

use std::os::fd::OwnedFd;

use super::ring::Ring;
use crate::error::Result;

/// Bytes of the near one, unless the far one has less. So much stays in caches, and the reader is there before it is full; a bulk
/// transfer is some 4 % faster than where only 32 MiB are gone through again and again. With 4 MiB a third of that is lost.
const NEAR: u32 = 2 << 20;

/// How many there are.
pub(super) const COUNT: usize = 2;

/// Bytes of the near one beside a far one of so many.
pub(super) fn near(far: u32) -> u32 {
    far.min(NEAR)
}

/// Both, the near one first.
pub(super) struct Rings([Ring; COUNT]);

impl Rings {
    /// Maps them, where the far one has so many bytes.
    pub(super) fn map(near_map: OwnedFd, far_map: OwnedFd, far: u32) -> Result<Self> {
        Ok(Self([Ring::map(near_map, near(far) as usize)?, Ring::map(far_map, far as usize)?]))
    }

    /// Each of them, by its number.
    pub(super) fn each(&self) -> &[Ring; COUNT] {
        &self.0
    }

    /// Gives everything before these positions back.
    pub(super) fn release(&mut self, positions: [u64; COUNT]) {
        for (ring, position) in self.0.iter_mut().zip(positions) {
            // Producers have seen the same one.
            if ring.position() != position {
                ring.release(position);
            }
        }
    }

    /// Whether the far one, which takes what finds no room in the other, may be full before the reader is called once more.
    pub(super) fn are_nearly_full(&self) -> bool {
        self.0[COUNT - 1].is_nearly_full()
    }

    /// Whether there is no record that is not released.
    pub(super) fn are_empty(&self) -> bool {
        self.0.iter().all(Ring::is_empty)
    }
}
