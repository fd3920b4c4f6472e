//! Pages of memory.

use nix::unistd::{SysconfVar, sysconf};

/// Bytes of one.
pub fn size() -> u32 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u32::try_from(size).ok());
    size.unwrap_or(4096)
}
