//! What is remarkable about a peer.

use super::paint::Colour;
use crate::talk::summary::Peer;

/// Remarks, and their colour.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    pub(super) text: String,
    pub(super) colour: Option<Colour>,
}

impl Notes {
    /// What there is to remark.
    pub(super) fn of(peer: &Peer) -> Self {
        let mut notes = Self::default();
        for (failed, what) in
            [(peer.refused, "refused"), (peer.unanswered, "no answer"), (peer.unreachable, "unreachable")]
        {
            match (failed, peer.connections) {
                (0, _) => {}
                // A connection that another process began counts there.
                (_, 0 | 1) => notes.add(what.into(), Colour::Red),
                (failed, all) => notes.add(format!("{what}: {failed} of {all}"), Colour::Red),
            }
        }
        if peer.queries_unanswered > 0 {
            let (unanswered, all) = (peer.queries_unanswered, peer.queries);
            notes.add(format!("unanswered: {unanswered} of {}", count(all, "query", "queries")), Colour::Red);
            if !peer.unanswered_names.is_empty() {
                notes.text += &format!(" ({})", peer.unanswered_names.join(" "));
            }
        }
        for (number, one, more) in [
            (peer.resets.total(), "reset", "resets"),
            (peer.retransmissions.total(), "retransmission", "retransmissions"),
        ] {
            if number > 0 {
                notes.add(count(number, one, more), Colour::Yellow);
            }
        }
        notes
    }

    /// A failure's colour stays.
    fn add(&mut self, text: String, colour: Colour) {
        if !self.text.is_empty() {
            self.text += ", ";
        }
        self.text += &text;
        self.colour.get_or_insert(colour);
    }
}

fn count(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}
