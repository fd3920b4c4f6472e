//! Packets that are just being written. They were stamped before others that are there already, and hold those back.
//!
//! It takes a moment, unless the processor was taken from the machine in the middle of it.

/// What is being written, as the reader saw it when it last looked.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// Of each source.
    marks: Vec<Option<Mark>>,
    /// A time before the last look at all of them: what was stamped by then was there, or seen to be begun.
    looked: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Of the packet in its source.
    position: u64,
    /// It was stamped after that.
    after: u64,
}

impl Begun {
    /// Up to which time nothing is missing from a source that has begun a packet at this position, or none. What comes before
    /// `known` was there at the last look, be it behind another that was begun and hid it.
    pub(super) fn up_to(&mut self, source: usize, position: Option<u64>, known: u64) -> u64 {
        if self.marks.len() <= source {
            self.marks.resize(source + 1, None);
        }
        let before = self.marks[source];
        let mark = position.map(|position| {
            let was_there = position < known || before.is_some_and(|mark| mark.position == position);
            let after = if was_there { before.map_or(0, |mark| mark.after) } else { self.looked };
            Mark { position, after }
        });
        self.marks[source] = mark;
        mark.map_or(u64::MAX, |mark| mark.after)
    }

    /// Whether anything was being written.
    pub(super) fn is_any(&self) -> bool {
        self.marks.iter().any(Option::is_some)
    }

    /// All were looked at, after this time.
    pub(super) fn looked(&mut self, time: u64) {
        self.looked = time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_begun_at_the_last_look_was_stamped_after_it() {
        let mut begun = Begun::default();
        begun.looked(10);
        assert_eq!([begun.up_to(0, None, 0), begun.up_to(1, None, 0)], [u64::MAX; 2]);
        assert!(!begun.is_any());
        begun.looked(20);
        assert_eq!([begun.up_to(0, None, 0), begun.up_to(1, Some(64), 0)], [u64::MAX, 20]);
        assert!(begun.is_any());
        // Still the same one, and one more.
        begun.looked(30);
        assert_eq!([begun.up_to(0, Some(8), 0), begun.up_to(1, Some(64), 0)], [30, 20]);
        // The next one.
        begun.looked(40);
        assert_eq!([begun.up_to(0, Some(8), 0), begun.up_to(1, Some(128), 0)], [30, 40]);
        // One that was behind that then, and one that was not.
        begun.looked(50);
        assert_eq!([begun.up_to(0, Some(16), 24), begun.up_to(1, Some(192), 192)], [30, 50]);
    }
}
