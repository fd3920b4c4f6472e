//! What /proc tells.

use std::{fs, io, path::Path, sync::LazyLock};

/// The host's own namespace of processes.
const HOST_PIDS: &str = "pid:[4026531836]";

/// A file of it as text. Names in there are whatever somebody chose: what is no UTF-8 in them is replaced.
///
/// # Errors
/// Where it cannot be read.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What is mounted where, for this process.
///
/// # Errors
/// Where it cannot be read.
pub fn mounts() -> io::Result<String> {
    text("/proc/self/mountinfo")
}

/// How much longer ago, in nanoseconds, `CLOCK_BOOTTIME` and start times in /proc have the boot of the machine for this process
/// than the kernel: something else than 0 in a namespace of time.
pub fn added_to_boot_time() -> i64 {
    static ADDED: LazyLock<i64> = LazyLock::new(|| {
        text("/proc/self/timens_offsets").ok().and_then(|text| boot_offset(&text)).unwrap_or(0)
    });
    *ADDED
}

/// See time_namespaces(7).
fn boot_offset(offsets: &str) -> Option<i64> {
    let mut line = offsets.lines().find_map(|line| line.strip_prefix("boottime"))?.split_whitespace();
    let mut number = || line.next()?.parse::<i64>().ok();
    number()?.checked_mul(1_000_000_000)?.checked_add(number()?)
}

/// Whether this process is in the host's own namespace of processes: they have the same numbers here as in the kernel, and
/// the first of them looks after orphans.
pub fn shows_the_hosts_processes() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name == Path::new(HOST_PIDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_clocks() {
        let offset = |line: &str| boot_offset(&format!("monotonic           7         0\n{line}\n"));
        assert_eq!(offset("boottime            0         0"), Some(0));
        assert_eq!(offset("boottime           -6 999999999"), Some(-5_000_000_001));
        assert_eq!(offset("boottime       172800         1"), Some(172_800_000_000_001));
        assert_eq!(offset("boottime  99999999999         0"), None);
        assert_eq!(offset("boottime"), None);
        assert_eq!(boot_offset(""), None);
    }
}
