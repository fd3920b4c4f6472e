//! When the last packets of a program's connections have passed.
//!
//! A program's end closes its connections, and the kernel says goodbye for it: FIN and its acknowledgement belong to
//! the trace.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::netns::Netns;
use crate::error::Result;

/// A peer that does not answer is not waited for longer.
const AT_MOST: Duration = Duration::from_secs(1);

/// How often the kernel is asked. It has no notification for this.
const EVERY: Duration = Duration::from_millis(5);

/// States of /proc/net/tcp in which a farewell is under way, see include/net/tcp_states.h of Linux.
const CLOSING: [&str; 4] = ["04", "05", "09", "0B"];

/// Waits until no connection in the namespace is being closed.
///
/// # Errors
/// Where the namespace cannot be entered.
pub fn wait(netns: &Netns) -> Result<()> {
    netns.run(|| {
        let deadline = Instant::now() + AT_MOST;
        while Instant::now() < deadline && is_closing() {
            thread::sleep(EVERY);
        }
        Ok(())
    })
}

fn is_closing() -> bool {
    // To go through the connections of all namespaces takes the kernel milliseconds.
    has_connections()
        && ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
            .iter()
            .any(|table| has_closing(&fs::read_to_string(table).unwrap_or_default()))
}

/// Whether there are any, be it that one has ended from this side and waits for the other's end.
fn has_connections() -> bool {
    ["/proc/thread-self/net/sockstat", "/proc/thread-self/net/sockstat6"]
        .iter()
        .any(|counts| fs::read_to_string(counts).is_ok_and(|text| counts_some(&text)))
}

fn counts_some(counts: &str) -> bool {
    let words: Vec<_> =
        counts.lines().filter(|line| line.starts_with("TCP")).flat_map(str::split_whitespace).collect();
    words.windows(2).any(|pair| matches!(pair[0], "inuse" | "tw") && pair[1] != "0")
}

/// The state is the fourth column.
fn has_closing(table: &str) -> bool {
    table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(3))
        .any(|state| CLOSING.contains(&state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted() {
        let none = "sockets: used 9\nTCP: inuse 0 orphan 3 tw 0 alloc 12 mem 1\nUDP: inuse 2 mem 0\n";
        assert!(!counts_some(none) && !counts_some("TCP6: inuse 0\nUDP6: inuse 1\n"));
        assert!(counts_some("TCP6: inuse 1\n") && counts_some(&none.replace("tw 0", "tw 1")));
    }

    #[test]
    fn states_of_a_farewell() {
        let table = |state| {
            format!(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n   \
                 0: FF2A10AC:9C40 0200630A:0050 {state} 00000000:00000000 00:00000000 00000000     0\n"
            )
        };
        for (state, expected) in
            [("01", false), ("04", true), ("05", true), ("06", false), ("09", true), ("0A", false)]
        {
            assert_eq!(has_closing(&table(state)), expected, "{state}");
        }
        assert!(!has_closing(""));
    }
}
