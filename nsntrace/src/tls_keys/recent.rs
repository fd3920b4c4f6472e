//! The secrets that were logged lately.

use std::collections::VecDeque;

use super::line::{Line, Opens, Random};

/// Bytes of lines that are kept, hundreds of connections.
const MOST: usize = 256 << 10;

/// The latest lines.
#[derive(Debug, Default)]
pub(super) struct Recent {
    lines: VecDeque<Line>,
    /// Bytes of their texts.
    bytes: usize,
}

impl Recent {
    pub(super) fn push(&mut self, line: Line) {
        self.bytes += line.text().len();
        self.lines.push_back(line);
        while self.bytes > MOST {
            self.bytes -= self.lines.pop_front().map_or(self.bytes, |line| line.text().len());
        }
    }

    /// All of them.
    pub(super) fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.text(), "\n"]).collect()
    }

    /// Whether they open the whole of this connection: what both ends say, but for early data.
    pub(super) fn opens(&self, random: &Random) -> bool {
        let (mut client, mut server) = (false, false);
        for line in self.lines.iter().rev().filter(|line| line.random() == random) {
            let opens = line.opens();
            client |= matches!(opens, Opens::Whole | Opens::Client);
            server |= matches!(opens, Opens::Whole | Opens::Server);
            if client && server {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(label: &str, number: usize) -> Line {
        Line::parse(format!("{label} {number:064x} {}", "ab".repeat(32)).as_bytes()).expect("a line")
    }

    #[test]
    fn a_connection_is_open_when_both_ends_are() {
        let mut recent = Recent::default();
        let random = *line("CLIENT_RANDOM", 7).random();
        for label in ["SERVER_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"] {
            recent.push(line(label, 7));
            recent.push(line("CLIENT_TRAFFIC_SECRET_0", 8));
            assert!(!recent.opens(&random));
        }
        recent.push(line("CLIENT_TRAFFIC_SECRET_0", 7));
        assert!(recent.opens(&random));
        recent.push(line("CLIENT_RANDOM", 9));
        assert!(recent.opens(line("CLIENT_RANDOM", 9).random()));
    }

    #[test]
    fn the_latest_are_kept() {
        let mut recent = Recent::default();
        for number in 0..10_000 {
            recent.push(line("CLIENT_RANDOM", number));
        }
        assert!(recent.text().len() <= MOST + recent.lines.len() && recent.lines.len() > 1000);
        assert!(recent.opens(line("CLIENT_RANDOM", 9_999).random()));
        assert!(!recent.opens(line("CLIENT_RANDOM", 0).random()));
    }
}
