//! The chains of nftables by which packets come in and are forwarded, whoever made them. Asked of the kernel itself: that
//! takes less than a millisecond, and most hosts have none but those of iptables. Rules are only counted here.

use std::{fmt, io};

use rtnetlink::{
    packet_core::{NLA_HEADER_SIZE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator},
    sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER},
};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// Somebody may change the rules while they are listed; then they are listed anew, so often at most.
const ATTEMPTS: usize = 20;

/// That they did, in the flags of a message.
const INTERRUPTED: u16 = 0x10;

/// Questions: `NFNL_SUBSYS_NFTABLES` with `NFT_MSG_GETCHAIN` and `NFT_MSG_GETRULE`.
const GET_CHAINS: u16 = 10 << 8 | 4;
const GET_RULES: u16 = 10 << 8 | 7;

/// Attributes of a chain, of linux/netfilter/nf_tables.h.
const TABLE: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const POLICY: u16 = 5;

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
    list(GET_CHAINS, base_chain)
}

/// How many rules of any chain have this in their comment.
///
/// # Errors
/// As [`all`].
pub fn count_rules(tag: &str) -> Result<usize> {
    let has_tag = |payload: &[u8]| payload.windows(tag.len()).any(|part| part == tag.as_bytes());
    Ok(list(GET_RULES, |payload| has_tag(payload).then_some(()))?.len())
}

fn list<T>(question: u16, read: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
    for _ in 0..ATTEMPTS {
        match dump(question, &read) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) if is_unknown(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error).context("list", "what is in the packet filter"),
        }
    }
    Err(Error::told("the packet filter is changed again and again while it is listed"))
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT))
}

/// None where somebody changed the rules meanwhile.
fn dump<T>(question: u16, read: impl Fn(&[u8]) -> Option<T>) -> io::Result<Option<Vec<T>>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&asked(question), 0)?;
    let mut found = Vec::new();
    let mut is_whole = true;
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
            is_whole &= message.flags() & INTERRUPTED == 0;
            match i32::from(message.message_type()) {
                libc::NLMSG_ERROR => return Err(failure(message.payload())),
                libc::NLMSG_DONE => return Ok(is_whole.then_some(found)),
                _ => found.extend(read(message.payload())),
            }
            let length = message.length() as usize;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// A header of netlink and one of netfilter, for all families.
fn asked(question: u16) -> Vec<u8> {
    const LENGTH: u8 = 20;
    let mut bytes = vec![0; LENGTH.into()];
    let mut message = NetlinkBuffer::new(&mut bytes);
    message.set_length(LENGTH.into());
    message.set_message_type(question);
    message.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    bytes
}

fn failure(payload: &[u8]) -> io::Error {
    let code = payload.first_chunk().map_or(libc::EPROTO, |code| -i32::from_ne_bytes(*code));
    io::Error::from_raw_os_error(code)
}

/// None for a chain that is at neither hook.
fn base_chain(payload: &[u8]) -> Option<BaseChain> {
    let (header, attributes) = payload.split_at_checked(4)?;
    let family = match i32::from(header[0]) {
        libc::NFPROTO_INET => "inet",
        libc::NFPROTO_IPV4 => "ip",
        libc::NFPROTO_IPV6 => "ip6",
        _ => return None,
    };
    let hook = match number(attribute(attribute(attributes, HOOK)?, HOOK_NUMBER)?)? {
        libc::NF_INET_LOCAL_IN => Hook::Input,
        libc::NF_INET_FORWARD => Hook::Forward,
        _ => return None,
    };
    let text = |kind| {
        let bytes = attribute(attributes, kind)?.strip_suffix(&[0])?;
        String::from_utf8(bytes.to_vec()).ok()
    };
    let policy = attribute(attributes, POLICY).and_then(number);
    Some(BaseChain {
        place: Place { family: family.to_owned(), table: text(TABLE)?, name: text(NAME)? },
        hook,
        policy_drops: policy == Some(libc::NF_DROP),
    })
}

fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let found = NlasIterator::new(attributes).filter_map(Result::ok).find(|found| found.kind() == kind)?;
    let length = found.value_length();
    // It does not tell where it ends by itself.
    found.into_inner().get(NLA_HEADER_SIZE..)?.get(..length)
}

fn number(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
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
        for length in 0..ANSWER.len() - 20 {
            let found = base_chain(&ANSWER[..length]);
            assert!(found.is_none_or(|chain| chain.place.name == "FWD"), "{length}");
        }
    }
}
