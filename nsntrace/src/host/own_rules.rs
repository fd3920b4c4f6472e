//! Rules of nftables that say in their comments whose they are, whoever carried them to the kernel: iptables, which works
//! on nftables today, or nft. They are told by that, and taken away in one transaction, while iptables needs a process for
//! each family and for each of them the kernel waits.

use super::{
    nat::{Family, Rule},
    netfilter::{self, Afterwards, DELETE_RULE, GET_RULES, Request, attribute, attributes, encoded, text},
};
use crate::error::Result;

/// Attributes of a rule.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;

/// An expression's name and data, and those of a match of iptables within.
const NAME: u16 = 1;
const DATA: u16 = 2;
const MATCH_INFO: u16 = 3;

/// What nft's user data begins with where it is a comment; its length follows.
const COMMENT: u8 = 0;

/// Whose rules: all with this comment, in the tables of one family only or in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The comment.
    pub comment: String,
    /// The family.
    pub family: Option<Family>,
}

impl Owner {
    /// The run of that tag.
    pub fn run(tag: &str) -> Self {
        Self { comment: tag.to_owned(), family: None }
    }

    fn owns(&self, rule: &Found) -> bool {
        let family = match self.family {
            None => None,
            Some(Family::V4) => Some(libc::NFPROTO_IPV4),
            Some(Family::V6) => Some(libc::NFPROTO_IPV6),
        };
        rule.comment == self.comment && family.is_none_or(|family| i32::from(rule.family) == family)
    }
}

/// A rule with a comment.
#[derive(Debug)]
struct Found {
    family: u8,
    table: Vec<u8>,
    chain: Vec<u8>,
    handle: Vec<u8>,
    comment: String,
}

/// How many rules the run of that tag has.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN, or where netlink does not answer.
pub fn count(tag: &str) -> Result<usize> {
    let rules = netfilter::list(GET_RULES, with_comment)?;
    Ok(rules.iter().filter(|rule| rule.comment == tag).count())
}

/// Those of some rules that are not there.
///
/// # Errors
/// What the kernel says.
pub fn missing(rules: Vec<Rule>) -> Result<Vec<Rule>> {
    if rules.is_empty() {
        return Ok(rules);
    }
    let found = netfilter::list(GET_RULES, with_comment)?;
    let is_there = |owner: Owner| found.iter().any(|rule| owner.owns(rule));
    Ok(rules.into_iter().filter(|rule| !is_there(rule.owner())).collect())
}

/// Takes away all rules of these owners.
///
/// # Errors
/// As [`count`]; what the kernel says of the first rule that it does not remove, and then all of them stay.
pub fn remove(owners: &[Owner]) -> Result<Afterwards> {
    netfilter::change(GET_RULES, with_comment, |rules| {
        rules.iter().filter(|rule| owners.iter().any(|owner| owner.owns(rule))).map(delete).collect()
    })
}

fn delete(rule: &Found) -> Request {
    let attributes = [
        encoded(RULE_TABLE, &rule.table),
        encoded(RULE_CHAIN, &rule.chain),
        encoded(RULE_HANDLE, &rule.handle),
    ];
    Request { kind: DELETE_RULE, family: rule.family, attributes: attributes.concat() }
}

/// The kernel's answer as a rule, if it has a comment.
fn with_comment(payload: &[u8]) -> Option<Found> {
    let (header, rule) = payload.split_at_checked(4)?;
    let comment = match attribute(rule, RULE_USERDATA).and_then(nft_comment) {
        Some(comment) => comment,
        None => attributes(attribute(rule, RULE_EXPRESSIONS)?)
            .find_map(|(_, expression)| iptables_comment(expression))?,
    };
    let owned = |kind| attribute(rule, kind).map(ToOwned::to_owned);
    Some(Found {
        family: header[0],
        table: owned(RULE_TABLE)?,
        chain: owned(RULE_CHAIN)?,
        handle: owned(RULE_HANDLE)?,
        comment: comment.to_owned(),
    })
}

fn nft_comment(data: &[u8]) -> Option<&str> {
    match data {
        [COMMENT, length, rest @ ..] => text(rest.get(..usize::from(*length))?),
        _ => None,
    }
}

fn iptables_comment(expression: &[u8]) -> Option<&str> {
    let data = attribute(expression, DATA).filter(|_| named(expression, "match"))?;
    attribute(data, MATCH_INFO).filter(|_| named(data, "comment")).and_then(text)
}

fn named(attributes: &[u8], name: &str) -> bool {
    attribute(attributes, NAME).and_then(text) == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(more: &[u8]) -> Vec<u8> {
        let (table, chain, handle) =
            (encoded(RULE_TABLE, b"fw\0"), encoded(RULE_CHAIN, b"FWD\0"), encoded(RULE_HANDLE, &[0; 8]));
        [&[1, 0, 0, 0][..], &table, &chain, &handle, more].concat()
    }

    #[test]
    fn both_kinds_of_comments_are_read() {
        let nft = rule(&encoded(RULE_USERDATA, b"\0\x0bnsntrace:1\0"));
        let info = [b"nsntrace:1\0garbage".as_slice(), &[0; 200]].concat();
        let data = [encoded(NAME, b"comment\0"), encoded(2, &[0; 4]), encoded(MATCH_INFO, &info)].concat();
        let expression = [encoded(NAME, b"match\0"), encoded(DATA, &data)].concat();
        let others = [encoded(NAME, b"counter\0"), encoded(DATA, &[])].concat();
        let expressions = [encoded(1, &others), encoded(1, &expression)].concat();
        let iptables = rule(&encoded(RULE_EXPRESSIONS, &expressions));
        for payload in [nft, iptables] {
            let found = with_comment(&payload).expect("a comment");
            assert!(Owner::run("nsntrace:1").owns(&found), "{found:?}");
            assert!(!Owner::run("nsntrace:").owns(&found));
            let owner = |family| Owner { comment: "nsntrace:1".into(), family: Some(family) };
            assert!(!owner(Family::V4).owns(&found) && !owner(Family::V6).owns(&found), "it is inet's");
            for length in 0..payload.len() {
                let found = with_comment(&payload[..length]);
                assert!(found.is_none_or(|found| "nsntrace:1".starts_with(&found.comment)), "{length}");
            }
        }
        assert!(with_comment(&rule(&[])).is_none());
    }
}
