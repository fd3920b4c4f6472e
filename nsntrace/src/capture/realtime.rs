//! Kernels in which whoever handles a packet may be held up by another on the same processor, who handles one too.

use std::{fs, sync::LazyLock};

use nix::sys::utsname::uname;

/// Whether this is a real-time kernel.
pub(super) fn is_here() -> bool {
    static IS_HERE: LazyLock<bool> = LazyLock::new(|| {
        let version = uname().is_ok_and(|name| says_so(&name.version().to_string_lossy()));
        // What says so in kernels that were made real-time by patches.
        version || fs::read("/sys/kernel/realtime").is_ok_and(|word| word.starts_with(b"1"))
    });
    *IS_HERE
}

fn says_so(version: &str) -> bool {
    version.split_whitespace().any(|word| matches!(word, "PREEMPT_RT" | "RT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for version in [
            "#1 SMP PREEMPT_RT Debian 6.12.57-1 (2025-11-05)",
            "#1 SMP PREEMPT RT Debian 4.19.289-2 (2023-08-08)",
        ] {
            assert!(says_so(version), "{version}");
        }
        for version in [
            "#1 SMP PREEMPT_DYNAMIC Debian 6.1.158-1 (2025-11-09)",
            "#2 SMP PREEMPT_LAZY Mon Nov 10 10:00:00 UTC 2025",
            "#1 SMP Debian 5.10.237-1 (2025-05-19)",
        ] {
            assert!(!says_so(version), "{version}");
        }
    }
}
