//! Chains of other firewalls, in which the packets of a trace are to pass as well.

use crate::{
    host::{
        Changes,
        change::Change,
        foreign, legacy,
        nat::{Family, Rule},
    },
    words::Voice,
};

/// Lets the same packets pass in chains of other firewalls. Where that cannot be done, says which chain it is.
pub(super) fn pass(changes: &mut Changes, rules: &[Rule], voice: Voice) {
    let chains = match foreign::chains() {
        Ok(chains) => chains,
        Err(error) => return voice.detail(format_args!("{error}")),
    };
    for chain in chains {
        let rules = foreign::concerned(&chain, rules);
        if rules.is_empty() {
            continue;
        }
        let passed = foreign::drops(&chain).and_then(|drops| {
            let insert = |changes: &mut Changes| {
                let tag = changes.id().tag();
                let change = Change::Foreign { chain: chain.place.clone() };
                let insert = || foreign::insert(&chain.place, &rules, &tag);
                if changes.made().contains(&change) { insert() } else { changes.make(change, insert) }
            };
            if drops { insert(changes) } else { Ok(()) }
        });
        if let Err(error) = passed {
            voice.held_back(&chain.place, &foreign::advice(&chain.place, error));
        }
    }
    look_at_legacy(rules, voice);
}

/// Says where the chains of the other iptables, in which we have no rules, may hold packets back.
fn look_at_legacy(rules: &[Rule], voice: Voice) {
    for family in [Family::V4, Family::V6] {
        let Some(reason) = legacy::obstacle(family) else { continue };
        if rules.iter().any(|rule| rule.family() == family) {
            voice.held_back(format_args!("iptables-legacy's chain FORWARD for {family}"), &reason);
        }
    }
}
