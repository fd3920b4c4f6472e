//! The blocks at the end of a file: what passed, what was lost, and whose it was.

use std::time::Duration;

use nsntrace_ebpf::Counters;
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption as Counted,
};

use super::{
    super::section::{Interface, fitting},
    Pcapng, append, nanoseconds, word,
};

/// Bytes of comments that a block has at most, and one comment: libpcap reads no block of more than 16 MiB.
const COMMENTS: usize = 1 << 20;

/// A moment of a capture.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// When it was, since the epoch.
    pub time: Duration,
    /// What was counted until then.
    pub counters: Counters,
}

impl Pcapng {
    /// Appends the statistics of what passed between two moments.
    ///
    /// How many packets are in the file is known of each interface, what was seen and lost of all of them together, and
    /// so are their processes, a comment each. Those that go into no block more have blocks of their own.
    pub(in crate::output) fn end(
        &mut self,
        out: &mut Vec<u8>,
        from: &Moment,
        to: &Moment,
        processes: Vec<String>,
    ) {
        if self.sources.is_empty() {
            // Without an interface nothing can be told of any, and readers on libpcap take it for damaged.
            let any = Interface { link_type: self.section.link_type, ..Interface::default() };
            append(out, self.section.description(&any));
            self.sources.push((&any).into());
        }
        let mut processes = processes.into_iter();
        let since = |count: fn(&Counters) -> u64| count(&to.counters).saturating_sub(count(&from.counters));
        for (number, source) in self.sources.iter().enumerate() {
            let mut options =
                vec![Counted::IsbStartTime(stamp(from.time)), Counted::IsbEndTime(stamp(to.time))];
            if number == 0 {
                options.extend([
                    Counted::IsbIfRecv(since(|counters| counters.filtered + counters.matched)),
                    Counted::IsbIfDrop(since(|counters| counters.dropped)),
                    Counted::IsbFilterAccept(since(|counters| counters.matched)),
                ]);
            }
            options.push(Counted::IsbUsrDeliv(source.packets));
            if number == 0 && self.sources.len() > 1 {
                let comment = "packets received, dropped and accepted are those of all interfaces together";
                options.push(Counted::Comment(comment.into()));
            }
            if number == 0 {
                options.extend(some(&mut processes));
            }
            append(out, statistics(number, to, options));
        }
        loop {
            let more = some(&mut processes);
            if more.is_empty() {
                break;
            }
            append(out, statistics(0, to, more));
        }
    }
}

fn statistics(
    number: usize,
    to: &Moment,
    options: Vec<Counted<'static>>,
) -> InterfaceStatisticsBlock<'static> {
    InterfaceStatisticsBlock { interface_id: word(number), timestamp: stamp(to.time), options }
}

/// The next lines, as comments: as many as go into a block.
fn some(lines: &mut impl Iterator<Item = String>) -> Vec<Counted<'static>> {
    let mut room = COMMENTS;
    let mut comments = Vec::new();
    while room > 0
        && let Some(line) = lines.next()
    {
        let line = fitting(&line);
        room = room.saturating_sub(line.len());
        comments.push(Counted::Comment(line));
    }
    comments
}

/// A time in statistics. The format has its upper half first, where pcap-file writes a number.
fn stamp(time: Duration) -> u64 {
    nanoseconds(time).rotate_left(32)
}
