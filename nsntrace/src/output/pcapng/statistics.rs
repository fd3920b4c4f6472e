//! The blocks at the end of a file: what passed, what was lost, and whose it was.

use std::time::Duration;

use nsntrace_ebpf::Counters;
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption as Counted,
};

use super::{super::section::fitting, Pcapng, append, nanoseconds, word};

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
    /// so are their processes, a comment each.
    pub(in crate::output) fn end(
        &self,
        out: &mut Vec<u8>,
        from: &Moment,
        to: &Moment,
        processes: Vec<String>,
    ) {
        let mut processes = processes.into_iter().map(|line| Counted::Comment(fitting(&line)));
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
            options.extend(processes.by_ref());
            append(
                out,
                InterfaceStatisticsBlock { interface_id: word(number), timestamp: stamp(to.time), options },
            );
        }
    }
}

/// A time in statistics. The format has its upper half first, where pcap-file writes a number.
fn stamp(time: Duration) -> u64 {
    nanoseconds(time).rotate_left(32)
}
