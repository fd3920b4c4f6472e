//! What becomes of a connection of TCP: who is answered, what is sent again.

use super::Way;
use crate::dissect::transport::Tcp;

/// A segment that comes so soon after one behind it, in nanoseconds, was overtaken on its way, and not sent again.
const OVERTAKEN: u64 = 3_000_000;

/// So many acknowledgements that say nothing new ask for a segment once more.
const MOST_DUPLICATES: u8 = 2;

/// Something to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A segment came once more.
    Retransmission,
    /// The first answer was a RST.
    Refused,
    /// Another RST.
    Reset,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Track {
    stage: Stage,
    /// Which way the first SYN went and its number, if that was seen.
    initial: Option<(Way, u32)>,
    sent: Half,
    received: Half,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There was a SYN, and no answer.
    Asked,
    /// There was an answer, or it is older than the trace.
    Connected,
    Failed,
}

/// What one end sends.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    /// The number of the byte behind the last one.
    next: Option<u32>,
    /// When that was sent.
    advanced: u64,
    /// What it acknowledges, and how often it said so in vain.
    acknowledged: u32,
    duplicates: u8,
}

impl Track {
    /// The connection that this segment, which went this way, is the first of.
    pub(super) fn new(way: Way, tcp: &Tcp<'_>) -> Self {
        let begins = tcp.syn && !tcp.ack;
        Self {
            stage: if begins { Stage::Asked } else { Stage::Connected },
            initial: begins.then_some((way, tcp.sequence)),
            sent: Half::default(),
            received: Half::default(),
        }
    }

    /// Whether it begins another connection between the same ports. Both ends may begin the same one.
    pub(super) fn is_another(&self, way: Way, tcp: &Tcp<'_>) -> bool {
        let meets_ours = self.is_unanswered() && self.initial.is_some_and(|(first, _)| first != way);
        tcp.syn && !tcp.ack && self.initial != Some((way, tcp.sequence)) && !meets_ours
    }

    /// Whether it waits for an answer.
    pub(super) fn is_unanswered(&self) -> bool {
        self.stage == Stage::Asked
    }

    /// Gives up, if it waits for an answer; true if it did.
    pub(super) fn fail(&mut self) -> bool {
        let waits = self.is_unanswered();
        if waits {
            self.stage = Stage::Failed;
        }
        waits
    }

    /// Looks at a segment, at this time in nanoseconds.
    pub(super) fn see(&mut self, way: Way, tcp: &Tcp<'_>, time: u64) -> Option<Event> {
        let is_first = tcp.syn && !tcp.ack;
        if tcp.rst {
            return Some(if self.fail() { Event::Refused } else { Event::Reset });
        }
        if self.stage != Stage::Connected && !is_first {
            self.stage = Stage::Connected;
        }
        let (own, other) = match way {
            Way::Sent => (&mut self.sent, &self.received),
            Way::Received => (&mut self.received, &self.sent),
        };
        own.acknowledges(tcp);
        // What the program sends cannot overtake itself before this.
        let is_asked_for = way == Way::Sent || other.duplicates >= MOST_DUPLICATES;
        own.is_again(tcp, time, is_asked_for).then_some(Event::Retransmission)
    }
}

impl Half {
    /// Whether all of a segment was sent before.
    fn is_again(&mut self, tcp: &Tcp<'_>, time: u64, is_asked_for: bool) -> bool {
        let flags = u32::from(tcp.syn) + u32::from(tcp.fin);
        let end = tcp.sequence.wrapping_add(tcp.length).wrapping_add(flags);
        if end == tcp.sequence {
            return false;
        }
        let Some(next) = self.next.filter(|next| !is_after(end, *next)) else {
            (self.next, self.advanced) = (Some(end), time);
            return false;
        };
        let keeps_alive = flags == 0 && tcp.length == 1 && end == next;
        let is_overtaken = !is_asked_for && time.saturating_sub(self.advanced) < OVERTAKEN;
        !keeps_alive && !is_overtaken
    }

    fn acknowledges(&mut self, tcp: &Tcp<'_>) {
        if !tcp.ack {
            return;
        }
        if tcp.acknowledged != self.acknowledged {
            (self.acknowledged, self.duplicates) = (tcp.acknowledged, 0);
        } else if tcp.length == 0 && !tcp.syn && !tcp.fin {
            self.duplicates = self.duplicates.saturating_add(1);
        }
    }
}

/// Whether a number is behind another one, where numbers begin anew behind the last.
fn is_after(number: u32, other: u32) -> bool {
    number.wrapping_sub(other).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn syn(sequence: u32) -> Tcp<'static> {
        Tcp { sequence, syn: true, ..Tcp::default() }
    }

    fn data(sequence: u32, length: u32, acknowledged: u32) -> Tcp<'static> {
        Tcp { sequence, length, acknowledged, ack: true, ..Tcp::default() }
    }

    /// A connection after its first three segments: the program's next byte is 8, the other end's 101.
    fn connected() -> Track {
        let mut track = Track::new(Way::Sent, &syn(7));
        assert_eq!(track.see(Way::Sent, &syn(7), 0), None);
        assert!(track.is_unanswered());
        let answer = Tcp { ack: true, acknowledged: 8, ..syn(100) };
        assert_eq!(track.see(Way::Received, &answer, 0), None);
        assert_eq!(track.see(Way::Sent, &data(8, 0, 101), 0), None);
        assert!(!track.is_unanswered());
        track
    }

    #[test]
    fn what_is_sent_again_is_counted() {
        let mut track = connected();
        let mut see = |tcp, time| track.see(Way::Sent, &tcp, time);
        assert_eq!(see(data(8, 10, 101), 0), None);
        assert_eq!(see(data(18, 10, 101), 0), None);
        assert_eq!(see(data(8, 10, 101), 1), Some(Event::Retransmission));
        assert_eq!(see(data(8, 20, 101), 1), Some(Event::Retransmission));
        // Something new is in it, nothing, or a question whether the other end is there.
        assert_eq!(see(data(18, 20, 101), 1), None);
        assert_eq!(see(data(37, 0, 101), 1), None);
        assert_eq!(see(data(37, 1, 101), 1), None);
        let fin = Tcp { fin: true, ..data(38, 0, 101) };
        assert_eq!((see(fin, 2), see(fin, 2)), (None, Some(Event::Retransmission)));
    }

    #[test]
    fn what_was_overtaken_is_not() {
        let mut track = connected();
        let mut see = |way, tcp, time| track.see(way, &tcp, time);
        assert_eq!(see(Way::Received, data(111, 10, 8), 10 * MS), None);
        assert_eq!(see(Way::Received, data(101, 10, 8), 11 * MS), None);
        assert_eq!(see(Way::Received, data(101, 10, 8), 14 * MS), Some(Event::Retransmission));
        // Somebody asked for it.
        assert_eq!(see(Way::Received, data(131, 10, 8), 20 * MS), None);
        for _ in 0..2 {
            assert_eq!(see(Way::Sent, data(8, 0, 121), 20 * MS), None);
        }
        assert_eq!(see(Way::Received, data(121, 10, 8), 20 * MS), None);
        assert_eq!(see(Way::Sent, data(8, 0, 121), 20 * MS), None);
        assert_eq!(see(Way::Received, data(121, 10, 8), 20 * MS), Some(Event::Retransmission));
    }

    #[test]
    fn numbers_begin_anew() {
        let mut track = Track::new(Way::Sent, &data(u32::MAX - 4, 10, 0));
        assert_eq!(track.see(Way::Sent, &data(u32::MAX - 4, 10, 0), 0), None);
        assert_eq!(track.see(Way::Sent, &data(5, 10, 0), 0), None);
        assert_eq!(track.see(Way::Sent, &data(u32::MAX - 4, 10, 0), 0), Some(Event::Retransmission));
    }

    #[test]
    fn both_may_begin() {
        let mut track = Track::new(Way::Sent, &syn(7));
        assert_eq!(track.see(Way::Sent, &syn(7), 0), None);
        assert!(!track.is_another(Way::Received, &syn(100)));
        assert_eq!(track.see(Way::Received, &syn(100), 0), None);
        let answer = Tcp { ack: true, acknowledged: 101, ..syn(7) };
        assert_eq!(track.see(Way::Sent, &answer, MS), Some(Event::Retransmission));
        assert!(!track.is_unanswered() && track.is_another(Way::Received, &syn(500)));
    }

    #[test]
    fn attempts_fail() {
        let rst = Tcp { rst: true, ack: true, ..Tcp::default() };
        let mut refused = Track::new(Way::Sent, &syn(7));
        assert_eq!(refused.see(Way::Sent, &syn(7), 0), None);
        assert_eq!(refused.see(Way::Sent, &syn(7), MS), Some(Event::Retransmission));
        assert_eq!(refused.see(Way::Received, &rst, MS), Some(Event::Refused));
        assert_eq!(refused.see(Way::Received, &rst, MS), Some(Event::Reset));
        assert!(!refused.is_unanswered() && !refused.fail());
        assert!(refused.is_another(Way::Sent, &syn(8)) && !refused.is_another(Way::Sent, &syn(7)));

        let mut unreachable = Track::new(Way::Sent, &syn(7));
        assert!(unreachable.fail() && !unreachable.fail() && !unreachable.is_unanswered());
        assert_eq!(connected().see(Way::Received, &rst, MS), Some(Event::Reset));
        assert!(!connected().fail());
    }
}
