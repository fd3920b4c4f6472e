//! A name of the DNS, which may be in pieces that point to each other, RFC 1035 4.1.4.

use std::fmt::{self, Display, Formatter, Write};

/// A sound name in a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    message: &'a [u8],
    at: usize,
}

/// Bytes of a name at most, with the length before each label and the end.
const LONGEST: usize = 255;

/// Pointers in a name at most. As many labels as fit into it may each be in a place of its own.
const MOST_POINTERS: usize = 127;

/// The two bits that tell a pointer from a label.
const POINTER: u8 = 0xc0;

/// One step on the way through a name.
enum Step<'a> {
    Label(&'a [u8], usize),
    Pointer(usize),
    End,
}

impl<'a> Name<'a> {
    /// The name there, and where it ends. None where it is cut, or longer than one may be, has too many pointers, or goes in
    /// circles.
    pub(super) fn read(message: &'a [u8], at: usize) -> Option<(Self, usize)> {
        let (mut place, mut end, mut length, mut earliest) = (at, None, 1, at);
        let mut pointers = 0;
        loop {
            match step(message, place)? {
                Step::Label(label, next) => {
                    length += label.len() + 1;
                    place = next;
                }
                // What was before, never what follows: so it ends.
                Step::Pointer(to) if to < earliest && pointers < MOST_POINTERS => {
                    pointers += 1;
                    end.get_or_insert(place + 2);
                    (place, earliest) = (to, to);
                }
                Step::Pointer(_) => return None,
                Step::End => return Some((Self { message, at }, end.unwrap_or(place + 1))),
            }
            if length > LONGEST {
                return None;
            }
        }
    }

    fn labels(&self) -> impl Iterator<Item = &'a [u8]> {
        let (message, mut place) = (self.message, self.at);
        std::iter::from_fn(move || {
            loop {
                match step(message, place)? {
                    Step::Label(label, next) => {
                        place = next;
                        return Some(label);
                    }
                    Step::Pointer(to) => place = to,
                    Step::End => return None,
                }
            }
        })
    }
}

fn step(message: &[u8], at: usize) -> Option<Step<'_>> {
    let first = *message.get(at)?;
    match first & POINTER {
        POINTER => {
            let second = *message.get(at + 1)?;
            Some(Step::Pointer(usize::from(u16::from_be_bytes([first & !POINTER, second]))))
        }
        0 if first == 0 => Some(Step::End),
        0 => {
            let next = at + 1 + usize::from(first);
            Some(Step::Label(message.get(at + 1..next)?, next))
        }
        _ => None,
    }
}

/// As the DNS compares names: letters are alike whatever their case.
impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.labels(), other.labels());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(a), Some(b)) if a.eq_ignore_ascii_case(b) => {}
                _ => return false,
            }
        }
    }
}

impl Display for Name<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let mut is_root = true;
        for label in self.labels() {
            if !is_root {
                formatter.write_char('.')?;
            }
            is_root = false;
            for byte in label {
                match byte {
                    b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' => formatter.write_char(char::from(*byte))?,
                    b'A'..=b'Z' => formatter.write_char(char::from(byte.to_ascii_lowercase()))?,
                    _ => write!(formatter, "\\{byte:03}")?,
                }
            }
        }
        if is_root { formatter.write_char('.') } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(message: &[u8], at: usize) -> Option<(String, usize)> {
        Name::read(message, at).map(|(name, end)| (name.to_string(), end))
    }

    #[test]
    fn pieces_are_put_together() {
        let message = b"\x04Test\x00\x07example\xc0\x00\x03www\xc0\x06";
        assert_eq!(text(message, 0), Some(("test".into(), 6)));
        assert_eq!(text(message, 6), Some(("example.test".into(), 16)));
        assert_eq!(text(message, 16), Some(("www.example.test".into(), 22)));
        assert_eq!(text(b"\0", 0), Some((".".into(), 1)));
        let (name, _) = Name::read(message, 6).expect("a name");
        assert!(Name::read(b"\x07EXAMPLE\x04test\x00", 0).is_some_and(|(other, _)| other == name));
        assert!(Name::read(b"\x07EXAMPLE\x00", 0).is_some_and(|(other, _)| other != name));
    }

    #[test]
    fn what_a_terminal_would_obey_is_written_as_numbers() {
        assert_eq!(text(b"\x05a.\x1b\xc3 \0", 0), Some(("a\\046\\027\\195\\032".into(), 7)));
    }

    #[test]
    fn circles_and_what_is_too_long_or_cut_are_none() {
        assert_eq!(text(b"\xc0\x00", 0), None);
        assert_eq!(text(b"\x01a\xc0\x00", 0), None);
        assert_eq!(text(b"\xc0\x02\xc0\x00", 2), None);
        assert_eq!(text(b"\x01a\xc0\x00\xc0\x02", 4), None);
        assert_eq!(text(b"\xc0\x05\x00\x00\x00\x00", 0), None);
        assert_eq!(text(b"\x40a\x00", 0), None);
        assert_eq!(text(b"\x05abc", 0), None);
        assert_eq!(text(b"", 0), None);
        // 127 pointers and one more.
        let chain = |pointers: u16| {
            let pointers =
                (0..pointers).flat_map(|number| (0xc000 | (2 * number).saturating_sub(1)).to_be_bytes());
            [vec![0], pointers.collect()].concat()
        };
        assert_eq!(text(&chain(127), 253), Some((".".into(), 255)));
        assert_eq!(text(&chain(128), 255), None);
        // 255 bytes and one more.
        let labels = |last: usize| [vec![b'x'; 63], vec![b'x'; 63], vec![b'x'; 63], vec![b'x'; last]];
        let name = |last| {
            let label = |label: Vec<u8>| [vec![u8::try_from(label.len()).expect("short")], label].concat();
            [labels(last).map(label).concat(), vec![0]].concat()
        };
        assert_eq!(text(&name(61), 0).map(|(_, end)| end), Some(255));
        assert_eq!(text(&name(62), 0), None);
    }
}
