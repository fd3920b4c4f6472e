//! How much was exchanged, each way.

use std::time::Duration;

use super::Way;

/// A number for each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// From the program.
    pub sent: u64,
    /// To the program.
    pub received: u64,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many packets.
    pub packets: Count,
    /// Their lengths on the wire, headers included.
    pub bytes: Count,
    /// The times of the first and the last one, in nanoseconds of `CLOCK_BOOTTIME`.
    pub times: Option<(u64, u64)>,
}

impl Count {
    /// That of one way.
    pub(super) fn of(&mut self, way: Way) -> &mut u64 {
        match way {
            Way::Sent => &mut self.sent,
            Way::Received => &mut self.received,
        }
    }

    /// The sum, way by way.
    pub(super) fn with(self, other: Self) -> Self {
        Self { sent: self.sent + other.sent, received: self.received + other.received }
    }

    /// Both ways.
    pub fn total(&self) -> u64 {
        self.sent + self.received
    }
}

impl Traffic {
    /// Counts a packet.
    pub(super) fn add(&mut self, way: Way, time: u64, bytes: u32) {
        *self.packets.of(way) += 1;
        *self.bytes.of(way) += u64::from(bytes);
        let (first, last) = self.times.unwrap_or((time, time));
        self.times = Some((first.min(time), last.max(time)));
    }

    /// The same with what is in another one.
    pub fn with(&self, other: &Self) -> Self {
        let times = [self.times, other.times].into_iter().flatten();
        Self {
            packets: self.packets.with(other.packets),
            bytes: self.bytes.with(other.bytes),
            times: times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))),
        }
    }

    /// From the first packet to the last.
    pub fn duration(&self) -> Duration {
        let (first, last) = self.times.unwrap_or_default();
        Duration::from_nanos(last - first)
    }
}
