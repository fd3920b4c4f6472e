//! Chains of other firewalls, in which the packets of a trace are to pass as well.

use std::{
    mem,
    time::{Duration, Instant},
};

use crate::{
    error::Result,
    host::{
        Changes,
        base_chains::{BaseChain, Place},
        change::Change,
        foreign::{self, Listings},
        legacy,
        nat::{Family, Rule},
    },
    words::Voice,
};

/// How long a chain in which nothing drops packets is left alone, whatever happens: who makes it may still be filling it, and
/// to look takes a listing of its table. Twice as long each time, up to the other.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The chains as they were found, one time after the other.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    seen: Vec<Seen>,
    /// Those of which was said that they may hold packets back.
    told: Vec<Place>,
}

#[derive(Clone, Debug)]
struct Seen {
    chain: BaseChain,
    /// Rules of ours in it.
    ours: usize,
    at: Instant,
    /// How long it is left alone.
    rest: Duration,
    /// Whether something has happened since.
    is_pending: bool,
}

impl Elsewhere {
    /// Lets the same packets pass in all chains that drop some, but for those that have our rules, and returns how many were
    /// inserted. Where that cannot be done in one, says once which it is.
    ///
    /// # Errors
    /// Where the chains cannot be listed.
    pub(super) fn pass(&mut self, changes: &mut Changes, rules: &[Rule], voice: Voice) -> Result<usize> {
        let chains = foreign::chains()?;
        let before = mem::take(&mut self.seen);
        let mut inserted = 0;
        let mut listings = Listings::default();
        for chain in chains {
            let known = before.iter().find(|seen| seen.chain.place == chain.place);
            let seen = match known {
                Some(known) if known.ours > 0 => Seen { chain, ..known.clone() },
                Some(known) if known.chain == chain && known.at.elapsed() < known.rest => {
                    Seen { is_pending: true, ..known.clone() }
                }
                _ => {
                    let rest = known.map_or(REST, |known| LONGEST_REST.min(2 * known.rest));
                    let ours = self.pass_in(&chain, &mut listings, changes, rules, voice);
                    inserted += ours;
                    Seen { chain, ours, at: Instant::now(), rest, is_pending: false }
                }
            };
            self.seen.push(seen);
        }
        Ok(inserted)
    }

    /// When a chain is to be looked at again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.seen.iter().filter(|seen| seen.is_pending).map(|seen| seen.at + seen.rest).min()
    }

    /// After our rules have been removed, wherever they were.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }

    /// Lets packets pass in one chain, if it drops some. Returns how many rules were inserted.
    fn pass_in(
        &mut self,
        chain: &BaseChain,
        listings: &mut Listings,
        changes: &mut Changes,
        rules: &[Rule],
        voice: Voice,
    ) -> usize {
        let rules = foreign::concerned(chain, rules);
        insert(chain, listings, changes, &rules).unwrap_or_else(|error| {
            if !self.told.contains(&chain.place) {
                self.told.push(chain.place.clone());
                voice.held_back(&chain.place, &foreign::advice(&chain.place, error));
            }
            0
        })
    }
}

fn insert(
    chain: &BaseChain,
    listings: &mut Listings,
    changes: &mut Changes,
    rules: &[Rule],
) -> Result<usize> {
    if rules.is_empty() {
        return Ok(0);
    }
    let Some(spot) = foreign::drops(chain, listings)? else { return Ok(0) };
    let tag = changes.id().tag();
    let change = Change::Foreign { chain: chain.place.clone() };
    let insert = || foreign::insert(&chain.place, spot, rules, &tag);
    if changes.made().contains(&change) {
        insert()?
    } else {
        changes.make(change, insert)?
    }
    Ok(rules.len())
}

/// Says where the chains of the other iptables, in which we have no rules, may hold packets back.
pub(super) fn look_at_legacy(rules: &[Rule], voice: Voice) {
    for family in [Family::V4, Family::V6] {
        let Some(reason) = legacy::obstacle(family) else { continue };
        if rules.iter().any(|rule| rule.family() == family) {
            voice.held_back(format_args!("iptables-legacy's chain FORWARD for {family}"), &reason);
        }
    }
}
