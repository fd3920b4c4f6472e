//! A message of the DNS, RFC 1035 4: what was asked, and which addresses the answer has for it.

mod name;

use std::net::IpAddr;

use name::Name;

use super::number;

/// A message, as far as it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What a query and its answer have in common.
    pub id: u16,
    /// Whether it is an answer.
    pub is_answer: bool,
    bytes: &'a [u8],
    questions: u16,
    answers: u16,
}

/// Bytes before the question.
const HEADER: usize = 12;

/// Of the second word: the bit of answers, and those that say what is wanted, which are 0 for a question.
const ANSWER: u16 = 0x8000;
const OPCODE: u16 = 0x7800;

/// Types of records, and the class of the Internet's.
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const IN: u16 = 1;

/// Names on the way from the one that was asked for to one with addresses, at most.
const MOST_ALIASES: usize = 16;

/// Records of an answer that are looked at, and addresses among them.
const MOST_RECORDS: u16 = 256;
const MOST_ADDRESSES: usize = 64;

/// A record of an answer.
struct Record<'a> {
    owner: Name<'a>,
    kind: u16,
    class: u16,
    /// Where its data is in the message.
    at: usize,
    data: &'a [u8],
}

/// Takes the next message out of a stream, where each stands behind its length, if it is there whole.
pub fn next_in_stream<'a>(stream: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = *stream;
    let length = usize::from(number(&mut rest)?);
    let message = rest.split_off(..length)?;
    *stream = rest;
    Some(message)
}

impl<'a> Message<'a> {
    /// Reads what a datagram carries. None where it is no question and no answer to one.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let (id, flags) = (number(&mut rest)?, number(&mut rest)?);
        let (questions, answers) = (number(&mut rest)?, number(&mut rest)?);
        let _others = rest.split_off(..4)?;
        let is_answer = flags & ANSWER != 0;
        let is_it = flags & OPCODE == 0 && questions <= 1 && (is_answer || questions == 1);
        is_it.then_some(Self { id, is_answer, bytes, questions, answers })
    }

    /// The name that it asks for, or answers: in lower case, without a dot at its end; bytes that are no letters, digits,
    /// hyphens or underscores are `\DDD`, as RFC 4343 has it. The root is a dot.
    pub fn name(&self) -> Option<String> {
        self.asked().map(|(name, _)| name.to_string())
    }

    /// The addresses that it has for the name that was asked for, which may be an alias.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let Some((asked, end)) = self.asked().filter(|_| self.is_answer) else { return Vec::new() };
        let mut names = vec![asked];
        let mut addresses = Vec::new();
        let mut at = end + 4;
        for _ in 0..self.answers.min(MOST_RECORDS) {
            let Some((record, next)) = self.record(at) else { break };
            at = next;
            if record.class != IN || !names.contains(&record.owner) || addresses.len() == MOST_ADDRESSES {
                continue;
            }
            match record.kind {
                CNAME if names.len() < MOST_ALIASES => {
                    names.extend(Name::read(self.bytes, record.at).map(|(name, _)| name));
                }
                A => addresses.extend(<[u8; 4]>::try_from(record.data).map(IpAddr::from)),
                AAAA => addresses.extend(<[u8; 16]>::try_from(record.data).map(IpAddr::from)),
                _ => {}
            }
        }
        addresses
    }

    /// The name that is asked for, and where it ends.
    fn asked(&self) -> Option<(Name<'a>, usize)> {
        Name::read(self.bytes, HEADER).filter(|_| self.questions == 1)
    }

    /// The record there, and where the next one is.
    fn record(&self, at: usize) -> Option<(Record<'a>, usize)> {
        let (owner, end) = Name::read(self.bytes, at)?;
        let mut rest = self.bytes.get(end..)?;
        let (kind, class) = (number(&mut rest)?, number(&mut rest)?);
        let _lifetime = rest.split_off(..4)?;
        let length = usize::from(number(&mut rest)?);
        let at = end + 10;
        let data = rest.split_off(..length)?;
        Some((Record { owner, kind, class, at, data }, at + length))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A name as it stands in a message.
    pub(crate) fn labels(name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for label in name.split('.').filter(|label| !label.is_empty()) {
            bytes.push(u8::try_from(label.len()).expect("short"));
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes
    }

    /// A query for addresses.
    pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
        let head = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes);
        [head.as_flattened(), &labels(name), &[0, 1, 0, 1]].concat()
    }

    /// An answer with these records: owner, type and data.
    pub(crate) fn answer(id: u16, name: &str, records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
        let count = u16::try_from(records.len()).expect("few");
        let head = [id, 0x8180, 1, count, 0, 0].map(u16::to_be_bytes);
        let mut bytes = [head.as_flattened(), &labels(name), &[0, 1, 0, 1]].concat();
        for (owner, kind, data) in records {
            let length = u16::try_from(data.len()).expect("short").to_be_bytes();
            bytes.extend([owner, &kind.to_be_bytes()[..], &[0, 1, 0, 0, 0, 60], &length, data].concat());
        }
        bytes
    }

    /// The name in the question, by a pointer.
    const ASKED: &[u8] = &[0xc0, 12];

    #[test]
    fn a_query_tells_what_it_asks() {
        let bytes = query(7, "wWw.Example.test");
        let message = Message::read(&bytes).expect("a message");
        assert_eq!((message.id, message.is_answer), (7, false));
        assert_eq!(message.name().as_deref(), Some("www.example.test"));
        assert!(message.addresses().is_empty());
        for end in 0..bytes.len() {
            let message = Message::read(&bytes[..end]);
            assert_eq!(message.is_some(), end >= HEADER);
            assert_eq!(message.and_then(|message| message.name()).is_some(), end >= bytes.len() - 4);
        }
    }

    #[test]
    fn an_answer_has_addresses_of_aliases_too() {
        let alias = labels("a.cdn.test");
        let six = "2001:db8::1".parse::<std::net::Ipv6Addr>().expect("valid");
        let bytes = answer(
            7,
            "www.example.test",
            &[
                (ASKED, CNAME, &alias),
                (&labels("A.CDN.test"), A, &[10, 0, 0, 1]),
                (ASKED, AAAA, &six.octets()),
                (&labels("other.test"), A, &[10, 0, 0, 2]),
                (ASKED, A, &[10, 0, 0]),
                (ASKED, 16, b"text"),
            ],
        );
        let message = Message::read(&bytes).expect("a message");
        assert!(message.is_answer);
        assert_eq!(message.addresses(), ["10.0.0.1".parse::<IpAddr>().expect("valid"), six.into()]);
        // What was cut has those before.
        let found: Vec<_> = (0..bytes.len()).filter_map(|end| Message::read(&bytes[..end])).collect();
        assert!(found.iter().all(|message| message.addresses().len() <= 2));
    }

    #[test]
    fn other_messages_are_none() {
        let mut update = query(7, "x");
        update[2] = 0x28;
        assert_eq!(Message::read(&update), None);
        let mut two = query(7, "x");
        two[5] = 2;
        assert_eq!(Message::read(&two), None);
        // An answer to nothing, as a server that understood nothing sends it.
        let nothing = [7, 0x8001, 0, 0, 0, 0].map(u16::to_be_bytes);
        let message = Message::read(nothing.as_flattened()).expect("a message");
        assert_eq!((message.name(), message.addresses()), (None, Vec::new()));
    }

    #[test]
    fn a_message_in_a_stream_has_its_length() {
        for (mut stream, message, rest) in [
            (&[0][..], None, &[0][..]),
            (&[0, 2, 5], None, &[0, 2, 5]),
            (&[0, 2, 5, 6, 7], Some(&[5, 6][..]), &[7]),
        ] {
            assert_eq!((next_in_stream(&mut stream), stream), (message, rest));
        }
    }
}
