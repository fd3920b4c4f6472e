//! Handshakes whose secrets are not there yet.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use nsntrace_ebpf::RecordHeader;

use super::line::Random;
use crate::dissect::{packet::Packet, tls::ClientHello, transport::Transport};

/// How long an answer waits for its secrets. A program logs them at once; on a busy machine it may not run at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Each answer whose secrets do not come makes the next wait so many times less, for a program that never logs them,
const LESS: u32 = 4;

/// and no less than that.
const LEAST_PATIENCE: Duration = Duration::from_millis(200);

/// Clients that wait for an answer, at most.
const MOST_CLIENTS: usize = 1024;

/// Answers that wait for their secrets, at most.
const MOST_WAITING: usize = 1024;

/// From whom a segment is, and to whom.
type Way = (SocketAddr, SocketAddr);

/// Clients without an answer, and answers without secrets.
#[derive(Debug)]
pub(super) struct Handshakes {
    clients: HashMap<Way, Random>,
    waiting: VecDeque<Waiting>,
    patience: Duration,
}

/// An answer that is held back.
#[derive(Debug)]
struct Waiting {
    random: Random,
    place: usize,
    until: Instant,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { clients: HashMap::new(), waiting: VecDeque::new(), patience: PATIENCE }
    }
}

impl Handshakes {
    /// Looks at a packet. Where it is a server's first answer to a client, that client's random.
    pub(super) fn see(&mut self, header: &RecordHeader, packet: &[u8]) -> Option<Random> {
        let packet = Packet::read(header.linktype, packet, header.wire_len)?;
        let Transport::Tcp(tcp) = &packet.transport else { return None };
        if tcp.payload.is_empty() {
            return None;
        }
        let (source, target) = packet.ends();
        if let Some(hello) = ClientHello::read(tcp.payload) {
            if self.clients.len() >= MOST_CLIENTS {
                // Nobody answers them.
                self.clients.clear();
            }
            self.clients.insert((source, target), hello.random);
            return None;
        }
        self.clients.remove(&(target, source))
    }

    /// Holds back what is at `place` and behind it. Where too many wait, all that wait are let go.
    pub(super) fn wait(&mut self, random: Random, place: usize, now: Instant) {
        if self.waiting.len() >= MOST_WAITING {
            self.let_all_go();
        }
        self.waiting.push_back(Waiting { random, place, until: now + self.patience });
    }

    /// Where the first of what is held back is.
    pub(super) fn held_from(&self) -> Option<usize> {
        self.waiting.front().map(|first| first.place)
    }

    /// Lets go what can be opened, and what has waited for too long.
    pub(super) fn let_go(&mut self, now: Instant, opens: impl Fn(&Random) -> bool) {
        let Self { waiting, patience, .. } = self;
        waiting.retain(|waiting| {
            let (opened, in_vain) = (opens(&waiting.random), waiting.until <= now);
            if opened {
                *patience = PATIENCE;
            } else if in_vain {
                *patience = (*patience / LESS).max(LEAST_PATIENCE);
            }
            !opened && !in_vain
        });
    }

    pub(super) fn let_all_go(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn move_places(&mut self, to: impl Fn(usize) -> usize) {
        for waiting in &mut self.waiting {
            waiting.place = to(waiting.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use nsntrace_ebpf::linktype;

    use super::*;
    use crate::dissect::frames::{self, Flag};

    const CLIENT: &str = "10.0.0.1:1000";
    const SERVER: &str = "10.0.0.2:443";

    fn see(handshakes: &mut Handshakes, from: &str, to: &str, payload: &[u8]) -> Option<Random> {
        let frame = frames::tcp(from, to, Flag::Ack, 1, payload);
        let length = u32::try_from(frame.len()).expect("short");
        let header = RecordHeader { linktype: linktype::EN10MB, wire_len: length, ..RecordHeader::default() };
        handshakes.see(&header, &frame)
    }

    #[test]
    fn the_first_answer_to_a_hello_is_found() {
        let mut handshakes = Handshakes::default();
        let hello = frames::client_hello([7; 32], "host");
        assert_eq!(see(&mut handshakes, SERVER, CLIENT, b"220 hello"), None);
        assert_eq!(see(&mut handshakes, CLIENT, SERVER, &hello), None);
        assert_eq!(see(&mut handshakes, CLIENT, SERVER, b"early"), None);
        assert_eq!(see(&mut handshakes, SERVER, CLIENT, b""), None);
        assert_eq!(see(&mut handshakes, SERVER, "10.0.0.1:1001", b"another"), None);
        assert_eq!(see(&mut handshakes, SERVER, CLIENT, b"answer"), Some([7; 32]));
        assert_eq!(see(&mut handshakes, SERVER, CLIENT, b"more"), None);
    }

    #[test]
    fn clients_without_an_answer_take_no_more_memory() {
        let mut handshakes = Handshakes::default();
        for port in 1..=3000 {
            let client = format!("10.0.0.1:{port}");
            see(&mut handshakes, &client, SERVER, &frames::client_hello([7; 32], "host"));
        }
        assert!(handshakes.clients.len() <= MOST_CLIENTS);
    }

    #[test]
    fn answers_without_secrets_take_no_more_memory() {
        let mut handshakes = Handshakes::default();
        for place in 0..3000 {
            handshakes.wait([1; 32], place, Instant::now());
            assert!(handshakes.waiting.len() <= MOST_WAITING);
        }
        assert_eq!(handshakes.held_from(), Some(2 * MOST_WAITING));
    }

    #[test]
    fn patience_is_less_for_who_does_not_log() {
        let mut handshakes = Handshakes::default();
        let now = Instant::now();
        handshakes.wait([1; 32], 10, now);
        handshakes.wait([2; 32], 20, now);
        handshakes.let_go(now, |random| *random == [1; 32]);
        assert_eq!((handshakes.held_from(), handshakes.patience), (Some(20), PATIENCE));
        for _ in 0..20 {
            handshakes.let_go(now + PATIENCE, |_| false);
            assert_eq!(handshakes.held_from(), None);
            handshakes.wait([3; 32], 30, now);
        }
        assert_eq!(handshakes.patience, LEAST_PATIENCE);
        handshakes.let_go(now, |_| true);
        assert_eq!((handshakes.held_from(), handshakes.patience), (None, PATIENCE));
    }
}
