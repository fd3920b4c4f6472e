//! What is said on stderr. Stdout is the program's.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    io::IsTerminal,
};

use nsntrace_ebpf::Counters;

use crate::{config::Words, error::Error};

/// Prints a line on stderr, in one piece: the program writes there too. Where it is closed there is nobody to tell.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write;
        let line = format!("{}\n", format_args!($($argument)*));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}
pub(crate) use say;

/// The text without what a terminal would obey: names are whatever somebody chose.
pub fn plain(text: &str) -> String {
    Plain(text).to_string()
}

/// The same on its way to somewhere else.
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|sign| f.write_char(if sign.is_control() { '?' } else { sign }))
    }
}

/// A program and its arguments as a shell would have them, plain.
pub fn as_a_shell_has_it<W: AsRef<str>>(words: impl Iterator<Item = W>) -> String {
    let quoted = |word: W| {
        let word = plain(word.as_ref());
        shlex::try_quote(&word).map(Cow::into_owned).unwrap_or(word)
    };
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// The lines of another program's message as one.
pub fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

/// The words of a trace, as far as they are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    words: Words,
    on_terminal: bool,
}

impl Voice {
    /// A voice that says so much.
    pub fn new(words: Words) -> Self {
        Self { words, on_terminal: std::io::stderr().is_terminal() }
    }

    /// That a trace begins.
    pub fn starting(self, program: &str, interface: &str, address: std::net::IpAddr) {
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
    pub fn starting_cgroup(self, path: &std::path::Path) {
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
        use std::io::Write;
        let _ = write!(std::io::stderr(), "\rGot {packets}\x1b[K");
    }

    /// The counts so far, for who asked by SIGUSR1.
    pub fn report(self, packets: u64, counters: &Counters) {
        say!("nsntrace: {packets} packets captured, {} dropped so far.", counters.dropped);
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
            say!(
                "{} packets dropped because the ring buffer of {kib} KiB was full: give it more with -B {}.",
                counters.dropped,
                u64::from(kib) * 4
            );
        }
        self.detail(format_args!(
            "{} packets filtered out, {} matched, {} captured, {} dropped, {} cut to the snapshot length, {packets} written",
            counters.filtered, counters.matched, counters.captured, counters.dropped, counters.cut
        ));
    }
}

/// Messages of the libraries and of the kernel side, for the curious.
#[derive(Debug)]
pub struct Log;

impl Log {
    /// Makes it the process's log.
    pub fn install() {
        // It fails where there is a log already, which then does.
        if log::set_logger(&Log).is_ok() {
            log::set_max_level(log::LevelFilter::Debug);
        }
    }
}

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let is_own = metadata.target().starts_with("nsntrace");
        metadata.level() <= if is_own { log::Level::Debug } else { log::Level::Warn }
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            say!("nsntrace: {}", record.args());
        }
    }

    fn flush(&self) {}
}
