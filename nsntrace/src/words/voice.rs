//! What is said of a trace, as far as that is wanted.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    net::IpAddr,
    path::Path,
};

use nsntrace_ebpf::Counters;

use super::{plain, say};
use crate::{
    config::{MAX_BUFFER_KIB, Words},
    error::Error,
};

/// The words of a trace, as far as they are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    words: Words,
    on_terminal: bool,
}

impl Voice {
    /// A voice that says so much.
    pub fn new(words: Words) -> Self {
        Self { words, on_terminal: io::stderr().is_terminal() }
    }

    /// That a trace begins.
    pub fn starting(self, program: &str, interface: &str, address: IpAddr) {
        if self.words > Words::Quiet {
            say!(
                "Starting network trace of '{}' on interface {interface}.\n\
                 Your IP address in this trace is {address}.\n\
                 Use ctrl-c to end at any time.\n",
                plain(program)
            );
        }
    }

    /// That a trace of a cgroup begins.
    pub fn starting_cgroup(self, path: &Path) {
        if self.words > Words::Quiet {
            say!(
                "Starting network trace of cgroup '{}'.\nUse ctrl-c to end at any time.\n",
                plain(&path.display().to_string())
            );
        }
    }

    /// That a program has ended, and others that it started have not.
    pub fn goes_on(self, program: &str, others: &str) {
        if self.words > Words::Quiet {
            say!(
                "nsntrace: '{}' has ended, and the trace goes on with what it started: {others}; ctrl-c ends them.",
                plain(program)
            );
        }
    }

    /// That a process is traced that was not meant: it came later.
    pub fn stranger(self, name: &str) {
        if self.words > Words::Quiet {
            say!("{name} has come into the cgroup: its packets are in the trace too.");
        }
    }

    /// That a setting of the host is changed for a while: `what` is forwarded, and where.
    pub fn forwarding(self, what: fmt::Arguments<'_>) {
        if self.words > Words::Quiet {
            say!("{what} was off: it is on for this trace, and off again after it.");
        }
    }

    /// That the program has no IPv6, and why.
    pub fn no_ipv6(self, reason: &Error) {
        if self.words > Words::Quiet {
            say!("There is no IPv6 in this trace: {reason}.");
        }
    }

    /// That a chain of the packet filter may drop packets of the trace, and why that was not changed.
    pub fn held_back(self, chain: impl fmt::Display, reason: &Error) {
        if self.words > Words::Quiet {
            say!("Packets of this trace may be held back by {}: {reason}.", plain(&chain.to_string()));
        }
    }

    /// That somebody has removed rules, and they come back.
    pub fn restored(self) {
        if self.words > Words::Quiet {
            say!("Somebody has removed rules of this trace: they are inserted again.");
        }
    }

    /// That a device leads to its own networks only.
    pub fn no_way_out(self, device: &str) {
        if self.words > Words::Quiet {
            say!("There is no default route by {device}: only its own networks are reached in this trace.");
        }
    }

    /// That a filter is larger than it might be, and takes its time.
    pub fn not_optimised(self) {
        if self.words > Words::Quiet {
            say!(
                "The filter of -f takes too long to optimise: it is used as it is, and the kernel takes long to check it."
            );
        }
    }

    /// What only the curious want to know.
    pub fn detail(self, text: fmt::Arguments<'_>) {
        if self.words == Words::Verbose {
            say!("nsntrace: {text}");
        }
    }

    /// Whether a count is kept on the terminal.
    pub fn counts(self) -> bool {
        self.words == Words::Verbose && self.on_terminal
    }

    /// The count so far, over the one before.
    pub fn running_count(self, packets: u64) {
        let _ = write!(io::stderr(), "\rGot {packets}\x1b[K");
    }

    /// The counts so far, for who asked by SIGUSR1.
    pub fn report(self, packets: u64, counters: &Counters) {
        say!("nsntrace: {packets} packets captured, {} dropped so far.", counters.dropped);
    }

    /// How many events of processes were lost, if some were. It is said as other losses are.
    pub fn missed(self, events: u64) {
        if events > 0 {
            say!("nsntrace: {events} events of processes were lost: names of processes may be wrong.");
        }
    }

    /// That a trace has ended. A loss is said whatever else is not.
    pub fn finished(self, packets: u64, counters: &Counters, ring_bytes: u32) {
        if self.counts() {
            say!("\r\x1b[K");
        }
        if self.words > Words::Quiet {
            say!("Finished capturing {packets} packets.");
        }
        if counters.dropped > 0 {
            let kib = ring_bytes / 1024;
            let more = kib.saturating_mul(4).min(MAX_BUFFER_KIB);
            let advice = if more > kib { format!(": give it more with -B {more}.") } else { ".".into() };
            say!(
                "{} packets dropped because the ring buffer of {kib} KiB was full{advice}",
                counters.dropped
            );
        }
        self.detail(format_args!(
            "{} packets filtered out, {} matched, {} captured, {} dropped, {} cut to the snapshot length, {packets} written",
            counters.filtered, counters.matched, counters.captured, counters.dropped, counters.cut
        ));
    }
}
