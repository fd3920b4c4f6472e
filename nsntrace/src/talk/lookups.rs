//! Queries to name servers, until they are answered.

use super::{DOMAIN, bounded::Bounded, streams::Ends};
use crate::dissect::dns::Message;

/// Queries without an answer that are kept: up to twice as many.
const MOST: usize = 1024;

/// A query, and who was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// The name in it, if that was kept.
    pub(super) name: Option<String>,
    /// The row of the summary that it belongs to.
    pub(super) peer: usize,
}

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A query, perhaps once more; and for which ones nobody waits any longer.
    Query { is_new: bool, given_up: Vec<Query> },
    /// The answer to a query, and the name that was asked for.
    Answer(Option<String>),
    /// An answer to nothing, or a query to nobody who answers.
    Unasked,
}

/// What waits for an answer. Answers to nothing tell nothing, nor do queries from a name server's port: anybody can send them.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    pending: Bounded<(Ends, u16), Query, MOST>,
}

impl Lookups {
    /// Looks at a message that went this way, between the program and who has this row.
    pub(super) fn see(&mut self, (source, target): Ends, message: &Message<'_>, peer: usize) -> Seen {
        let server = if message.is_answer { source } else { target };
        if server.port() != DOMAIN {
            return Seen::Unasked;
        }
        let name = message.name();
        if !message.is_answer {
            let key = ((source, target), message.id);
            let query = Query { name, peer };
            let replaced = self.pending.remove(&key);
            let is_new = replaced.as_ref() != Some(&query);
            let forgotten = self.pending.insert(key, query).into_values();
            let given_up = replaced.filter(|_| is_new).into_iter().chain(forgotten).collect();
            return Seen::Query { is_new, given_up };
        }
        let key = ((target, source), message.id);
        match self.pending.get(&key) {
            // What was cut may be the name.
            Some(query) if query.name.is_none() || name.is_none() || query.name == name => {
                self.pending.remove(&key);
                Seen::Answer(name)
            }
            _ => Seen::Unasked,
        }
    }

    /// What was never answered.
    pub(super) fn into_pending(self) -> impl Iterator<Item = Query> {
        self.pending.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dissect::dns::tests::{answer, query};

    const CLIENT: &str = "10.0.0.1:1000";
    const SERVER: &str = "10.0.0.2:53";

    fn see(lookups: &mut Lookups, from: &str, to: &str, bytes: &[u8]) -> Seen {
        let way = (from.parse().expect("valid"), to.parse().expect("valid"));
        lookups.see(way, &Message::read(bytes).expect("a message"), 5)
    }

    fn asked(is_new: bool) -> Seen {
        Seen::Query { is_new, given_up: Vec::new() }
    }

    #[test]
    fn an_answer_belongs_to_its_query() {
        let mut lookups = Lookups::default();
        let right = answer(7, "a.test", &[]);
        assert_eq!(see(&mut lookups, SERVER, CLIENT, &right), Seen::Unasked);
        assert_eq!(see(&mut lookups, CLIENT, SERVER, &query(7, "a.test")), asked(true));
        assert_eq!(see(&mut lookups, CLIENT, SERVER, &query(7, "a.test")), asked(false));
        for wrong in [answer(8, "a.test", &[]), answer(7, "b.test", &[])] {
            assert_eq!(see(&mut lookups, SERVER, CLIENT, &wrong), Seen::Unasked);
        }
        assert_eq!(see(&mut lookups, "10.0.0.3:53", CLIENT, &right), Seen::Unasked);
        assert_eq!(see(&mut lookups, SERVER, CLIENT, &right), Seen::Answer(Some("a.test".into())));
        assert_eq!(see(&mut lookups, SERVER, CLIENT, &right), Seen::Unasked);
        assert_eq!(lookups.into_pending().count(), 0);
    }

    #[test]
    fn who_asks_another_question_with_the_same_number_has_given_up_the_first() {
        let mut lookups = Lookups::default();
        assert_eq!(see(&mut lookups, CLIENT, SERVER, &query(7, "a.test")), asked(true));
        let given_up = vec![Query { name: Some("a.test".into()), peer: 5 }];
        let seen = see(&mut lookups, CLIENT, SERVER, &query(7, "b.test"));
        assert_eq!(seen, Seen::Query { is_new: true, given_up });
        assert_eq!(lookups.into_pending().count(), 1);
    }

    #[test]
    fn a_name_server_does_not_ask() {
        let mut lookups = Lookups::default();
        assert_eq!(see(&mut lookups, SERVER, CLIENT, &query(7, "a.test")), Seen::Unasked);
        assert_eq!(see(&mut lookups, CLIENT, SERVER, &answer(7, "a.test", &[])), Seen::Unasked);
        assert_eq!(lookups.into_pending().count(), 0);
    }

    #[test]
    fn a_flood_of_queries_is_given_up() {
        let mut lookups = Lookups::default();
        let mut given_up = 0;
        for id in 0..10_000 {
            match see(&mut lookups, CLIENT, SERVER, &query(id, "a.test")) {
                Seen::Query { is_new: true, given_up: some } => given_up += some.len(),
                other => panic!("{other:?}"),
            }
        }
        let pending: Vec<_> = lookups.into_pending().collect();
        assert!(pending.len() <= 2 * MOST && pending.len() + given_up == 10_000);
        assert_eq!(pending[0], Query { name: Some("a.test".into()), peer: 5 });
    }
}
