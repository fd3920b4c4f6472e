//! Packets that wait in a ring buffer to be written, and which of them may go.

/// A packet that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// When it was stamped.
    pub(super) time: u64,
    /// Its position in the ring.
    pub(super) position: u64,
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
        times.iter().map(|time| Entry { time: *time, position: 0 }).collect()
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
