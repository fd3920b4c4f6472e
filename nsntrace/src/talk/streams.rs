//! Words that come in several segments.

use std::borrow::Cow;

use super::{End, bounded::Bounded};
use crate::dissect::transport::Tcp;

/// From whom a packet is, and to whom.
pub(super) type Ends = (End, End);

/// Streams that are waited for: up to twice as many.
const MOST: usize = 32;

/// Bytes that are kept of one: a message of the DNS with its length.
const LONGEST: usize = 2 + u16::MAX as usize;

/// What was kept of a stream.
#[derive(Debug)]
struct Kept {
    /// The number of the byte behind it.
    next: u32,
    bytes: Vec<u8>,
}

/// Beginnings of words whose end has not come yet.
#[derive(Debug, Default)]
pub(super) struct Streams {
    kept: Bounded<Ends, Kept, MOST>,
}

impl Streams {
    /// The segment's payload, behind what was kept of its stream, if it goes on there. None where it says once more what the
    /// stream had before.
    pub(super) fn join<'a>(&mut self, ends: Ends, tcp: &Tcp<'a>) -> Option<Cow<'a, [u8]>> {
        let Some(mut kept) = self.kept.remove(&ends) else { return Some(tcp.payload.into()) };
        match kept.next.wrapping_sub(tcp.sequence) as usize {
            0 => {
                kept.bytes.extend_from_slice(tcp.payload);
                Some(kept.bytes.into())
            }
            1..=LONGEST => {
                self.kept.insert(ends, kept);
                None
            }
            // What is between is not in the trace, or it is another connection.
            _ => Some(tcp.payload.into()),
        }
    }

    /// Keeps what the stream had up to the end of this segment, less so many bytes at its front.
    pub(super) fn keep(&mut self, ends: Ends, tcp: &Tcp<'_>, bytes: Cow<'_, [u8]>, read: usize) {
        let is_whole = tcp.payload.len() == tcp.length as usize;
        if is_whole && bytes.len() - read <= LONGEST {
            // What was kept before is kept where it is.
            let mut bytes = bytes.into_owned();
            bytes.drain(..read);
            let kept = Kept { next: tcp.sequence.wrapping_add(tcp.length), bytes };
            self.kept.insert(ends, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u32, payload: &[u8]) -> Tcp<'_> {
        let length = u32::try_from(payload.len()).expect("short");
        Tcp { sequence, payload, length, ..Tcp::default() }
    }

    #[test]
    fn what_goes_on_is_joined() {
        let way = ("10.0.0.1:1".parse().expect("valid"), "10.0.0.2:2".parse().expect("valid"));
        let mut streams = Streams::default();
        let first = segment(u32::MAX, b"ab");
        let joined = |streams: &mut Streams, way, segment| streams.join(way, &segment).map(Cow::into_owned);
        assert_eq!(joined(&mut streams, way, first), Some(b"ab".into()));
        streams.keep(way, &first, b"-ab".into(), 1);
        assert_eq!(joined(&mut streams, (way.1, way.0), segment(1, b"back")), Some(b"back".into()));
        // Once more.
        assert_eq!(joined(&mut streams, way, first), None);
        assert_eq!(joined(&mut streams, way, segment(1, b"cd")), Some(b"abcd".into()));
        assert_eq!(joined(&mut streams, way, segment(1, b"cd")), Some(b"cd".into()));
        streams.keep(way, &first, b"ab".into(), 0);
        assert_eq!(joined(&mut streams, way, segment(5, b"later")), Some(b"later".into()));
    }

    #[test]
    fn what_is_cut_or_too_long_is_not_kept() {
        let way = ("10.0.0.1:1".parse().expect("valid"), "10.0.0.2:2".parse().expect("valid"));
        let mut streams = Streams::default();
        streams.keep(way, &Tcp { length: 3, ..segment(1, b"ab") }, b"ab".into(), 0);
        assert_eq!(streams.join(way, &segment(4, b"cd")).as_deref(), Some(&b"cd"[..]));
        streams.keep(way, &segment(1, b"ab"), vec![0; LONGEST + 1].into(), 0);
        assert_eq!(streams.join(way, &segment(3, b"cd")).as_deref(), Some(&b"cd"[..]));
    }
}
