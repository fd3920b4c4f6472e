//! Waiting for who is in the middle of writing a record.

use std::thread;

use super::clock::boot_now;

/// How long, in nanoseconds. It takes microseconds, unless its processor was taken from the machine.
const PATIENCE: u64 = 100_000_000;

/// Waits until something has happened; false if that takes too long.
pub(super) fn until(mut happened: impl FnMut() -> bool) -> bool {
    if happened() {
        return true;
    }
    let end = boot_now() + PATIENCE;
    while boot_now() < end {
        thread::yield_now();
        if happened() {
            return true;
        }
    }
    false
}
