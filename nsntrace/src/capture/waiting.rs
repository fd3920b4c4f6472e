//! Packets that wait to be written, and which of them may go.

/// A packet that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// When it was stamped.
    pub(super) time: u64,
    /// Where it is.
    pub(super) whereabouts: Whereabouts,
}

/// Where a packet's header is, in as little as can be: there are as many as there are packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whereabouts(u64);

/// The same, to be told apart.
pub(super) enum Source {
    /// The ring buffer with this number, in which it has this position.
    Ring(usize, u64),
    /// A lane, and what [`Lanes::bytes`](super::lanes::Lanes::bytes) finds it by.
    Lane(usize),
}

impl Whereabouts {
    /// Set for a place in a lane, and for a position in the far ring buffer. None comes so far.
    const LANE: u64 = 1 << 63;
    const FAR: u64 = 1 << 62;

    pub(super) fn in_ring(number: usize, position: u64) -> Self {
        Self(if number == 0 { position } else { position | Self::FAR })
    }

    pub(super) fn in_lane(place: usize) -> Self {
        Self(place as u64 | Self::LANE)
    }

    pub(super) fn source(self) -> Source {
        if self.0 & Self::LANE != 0 {
            Source::Lane((self.0 & !Self::LANE) as usize)
        } else {
            Source::Ring(usize::from(self.0 & Self::FAR != 0), self.0 & !Self::FAR)
        }
    }
}

/// How many entries at the front are ready: stamped up to `settled`, unless one behind that is not is older.
pub(super) fn ready(entries: &[Entry], settled: u64) -> usize {
    let old = entries.iter().position(|entry| entry.time > settled).unwrap_or(entries.len());
    let (front, back) = entries.split_at(old);
    let straggler = back.iter().map(|entry| entry.time).min().unwrap_or(u64::MAX);
    front.iter().position(|entry| entry.time > straggler).unwrap_or(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(times: &[u64]) -> Vec<Entry> {
        times.iter().map(|time| Entry { time: *time, whereabouts: Whereabouts::in_lane(0) }).collect()
    }

    #[test]
    fn settled_entries_are_ready() {
        assert_eq!(ready(&entries(&[1, 2, 3]), 9), 3);
        assert_eq!(ready(&entries(&[1, 2, 3]), 2), 2);
        assert_eq!(ready(&entries(&[2, 1, 3]), 2), 2);
        assert_eq!(ready(&entries(&[3, 4]), 2), 0);
        assert_eq!(ready(&entries(&[]), 2), 0);
    }

    #[test]
    fn a_straggler_holds_back_what_is_younger() {
        assert_eq!(ready(&entries(&[1, 2, 5, 8, 4, 9]), 7), 2);
        assert_eq!(ready(&entries(&[1, 2, 5, 8, 6]), 7), 3);
    }
}
