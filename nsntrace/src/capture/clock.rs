//! From the kernel's boot clock to the wall clock.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::proc;

/// Nanoseconds of `CLOCK_BOOTTIME` as the kernel has it, the clock that records are stamped with: it counts on through a suspend.
pub fn boot_now() -> u64 {
    now(ClockId::CLOCK_BOOTTIME).wrapping_add_signed(-proc::added_to_boot_time())
}

/// How often the offset is measured anew, in nanoseconds.
const RENEW_AFTER: u64 = 1_000_000_000;

/// Differences below this are the noise of measuring, in nanoseconds.
const NOISE: u64 = 20_000;

/// Translates stamps, in the order of the packets. Where the wall clock is set back, order wins: the old offset stays
/// in force until the new one would not repeat a time.
#[derive(Debug)]
pub struct Clock {
    /// What is added to boot time, in nanoseconds.
    offset: u64,
    measured: u64,
    last: u64,
}

impl Clock {
    /// Compares the clocks.
    pub fn new() -> Self {
        Self { offset: measure(), measured: boot_now(), last: 0 }
    }

    /// Follows the wall clock if it was set since. `now` is boot time.
    pub fn renew(&mut self, now: u64) {
        if now.saturating_sub(self.measured) >= RENEW_AFTER {
            self.measured = now;
            self.adopt(measure(), now);
        }
    }

    fn adopt(&mut self, offset: u64, now: u64) {
        if offset.abs_diff(self.offset) > NOISE && now + offset > self.last {
            self.offset = offset;
        }
    }

    /// Wall time of a stamp, since the epoch; never before the one returned last.
    pub fn wall(&mut self, boot: u64) -> Duration {
        self.last = self.last.max(boot + self.offset);
        Duration::from_nanos(self.last)
    }

    /// Wall time of what has happened before packets that were looked at.
    pub fn past(&self, boot: u64) -> Duration {
        Duration::from_nanos(boot + self.offset)
    }

    /// Wall time of a moment that is no packet's, as the packets then have it.
    pub fn at(&self, boot: u64) -> Duration {
        Duration::from_nanos(self.last.max(boot + self.offset))
    }
}

/// Wall time minus boot time. The wall clock is read between two looks at the other; the closest of a few counts.
fn measure() -> u64 {
    let look = |_| {
        let before = boot_now();
        let wall = now(ClockId::CLOCK_REALTIME);
        let after = boot_now();
        (after - before, wall - (before + (after - before) / 2))
    };
    (0..5).map(look).min().map_or(0, |(_, offset)| offset)
}

fn now(clock: ClockId) -> u64 {
    // It fails for clocks that do not exist, and these do.
    let time = clock_gettime(clock).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_wall_clock() {
        let mut clock = Clock::new();
        let before = now(ClockId::CLOCK_REALTIME);
        let wall = u64::try_from(clock.wall(boot_now()).as_nanos()).expect("fits");
        let after = now(ClockId::CLOCK_REALTIME);
        assert!((before - 1_000_000..after + 1_000_000).contains(&wall));
    }

    #[test]
    fn it_follows_a_wall_clock_that_is_set_forward() {
        let mut clock = Clock { offset: 1000, measured: 0, last: 0 };
        clock.wall(10);
        clock.adopt(1_000_001_000, 20);
        assert_eq!(clock.wall(20), Duration::from_nanos(1_000_001_020));
    }

    #[test]
    fn order_wins_where_it_is_set_back() {
        let mut clock = Clock { offset: 5_000_000, measured: 0, last: 0 };
        assert_eq!(clock.wall(100), Duration::from_nanos(5_000_100));
        clock.adopt(1_000_000, 200);
        assert_eq!(clock.wall(200), Duration::from_nanos(5_000_200));
        clock.adopt(1_000_000, 4_000_201);
        assert_eq!(clock.wall(4_000_300), Duration::from_nanos(5_000_300));
        // A record that was stamped late by another processor.
        assert_eq!(clock.wall(4_000_250), Duration::from_nanos(5_000_300));
    }
}
