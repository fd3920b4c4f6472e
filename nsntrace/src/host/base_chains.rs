//! The chains of nftables by which packets arrive, come in and are forwarded, whoever made them, but for those that only
//! translate addresses. Asked of the kernel itself: that takes less than a millisecond, and most hosts have none but those of
//! iptables.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::netfilter::{self, GET_CHAINS, attribute, number, text};
use crate::error::Result;

/// Attributes of a chain, of linux/netfilter/nf_tables.h.
pub(super) const TABLE: u16 = 1;
pub(super) const NAME: u16 = 3;
const HOOK: u16 = 4;
const POLICY: u16 = 5;
const TYPE: u16 = 7;

/// The type of a chain that is to drop packets.
const FILTER: &str = "filter";

/// The attribute of a hook that has its number.
const HOOK_NUMBER: u16 = 1;

/// Where a chain is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `ip`, `ip6`, or `inet` for both.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain's own name.
    pub name: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} of table {} {}", self.name, self.family, self.table)
    }
}

/// What a chain is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets that arrive, wherever they are to go.
    Prerouting,
    /// Packets for the host itself.
    Input,
    /// Packets that it passes on.
    Forward,
}

/// A chain at one of the hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Where it is.
    pub place: Place,
    /// Its hook.
    pub hook: Hook,
    /// Whether it drops whatever no rule of it accepts.
    pub policy_drops: bool,
}

/// All of them, in the network namespace of the calling thread. None on a kernel without nftables.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN, or where netlink does not answer.
pub fn all() -> Result<Vec<BaseChain>> {
    netfilter::list(GET_CHAINS, base_chain)
}

/// None for a chain that is at none of the hooks.
fn base_chain(payload: &[u8]) -> Option<BaseChain> {
    let (header, attributes) = payload.split_at_checked(4)?;
    let family = match i32::from(header[0]) {
        libc::NFPROTO_INET => "inet",
        libc::NFPROTO_IPV4 => "ip",
        libc::NFPROTO_IPV6 => "ip6",
        _ => return None,
    };
    if attribute(attributes, TYPE).and_then(text)? != FILTER {
        return None;
    }
    let hook = match number(attribute(attribute(attributes, HOOK)?, HOOK_NUMBER)?)? {
        libc::NF_INET_PRE_ROUTING => Hook::Prerouting,
        libc::NF_INET_LOCAL_IN => Hook::Input,
        libc::NF_INET_FORWARD => Hook::Forward,
        _ => return None,
    };
    let text = |kind| attribute(attributes, kind).and_then(text).map(ToOwned::to_owned);
    let policy = attribute(attributes, POLICY).and_then(number);
    Some(BaseChain {
        place: Place { family: family.to_owned(), table: text(TABLE)?, name: text(NAME)? },
        hook,
        policy_drops: policy == Some(libc::NF_DROP),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.18 answers for a chain `FWD` of table `inet fw` that forwards nothing.
    const ANSWER: &[u8] = b"\x01\0\0\x01\
        \x07\0\x01\0fw\0\0\
        \x08\0\x03\0FWD\0\
        \x0c\0\x02\0\0\0\0\0\0\0\0\x01\
        \x14\0\x04\0\x08\0\x01\0\0\0\0\x02\x08\0\x02\0\0\0\0\x05\
        \x08\0\x05\0\0\0\0\0\
        \x0b\0\x07\0filter\0\0";

    #[test]
    fn a_chain_is_read_from_the_kernels_answer() {
        let place = Place { family: "inet".into(), table: "fw".into(), name: "FWD".into() };
        let expected = BaseChain { place, hook: Hook::Forward, policy_drops: true };
        assert_eq!(base_chain(ANSWER), Some(expected));
    }

    #[test]
    fn an_answer_that_is_cut_is_none() {
        for length in 0..ANSWER.len() - 4 {
            assert_eq!(base_chain(&ANSWER[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_chain_that_translates_addresses_is_none() {
        let filter = b"\x0b\0\x07\0filter\0\0";
        let nat = b"\x08\0\x07\0nat\0";
        let answer = [ANSWER.strip_suffix(filter).expect("its type"), nat].concat();
        assert_eq!(base_chain(&answer), None);
    }
}
