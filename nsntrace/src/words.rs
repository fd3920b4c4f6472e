//! What is said on stderr. Stdout is the program's.

use std::io::IsTerminal;

use crate::{capture::Stats, config::Words};

/// Prints a line on stderr. Where that is closed there is nobody to tell it to.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($argument)*);
    }};
}
pub(crate) use say;

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
                "Starting network trace of '{program}' on interface {interface}.\n\
                 Your IP address in this trace is {address}.\n\
                 Use ctrl-c to end at any time.\n"
            );
        }
    }

    /// That a setting of the host is changed for a while.
    pub fn forwarding(self, device: &str) {
        if self.words > Words::Quiet {
            say!("IPv4 forwarding on {device} was off: it is on for this trace, and off again after it.");
        }
    }

    /// What only the curious want to know.
    pub fn detail(self, text: std::fmt::Arguments<'_>) {
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
    pub fn report(self, packets: u64, stats: &Stats) {
        say!("nsntrace: {packets} packets captured, {} dropped so far.", stats.dropped);
    }

    /// That a trace has ended. A loss is said whatever else is not.
    pub fn finished(self, packets: u64, stats: &Stats, ring_bytes: u32) {
        if self.counts() {
            say!("\r\x1b[K");
        }
        if self.words > Words::Quiet {
            say!("Finished capturing {packets} packets.");
        }
        if stats.dropped > 0 {
            let kib = ring_bytes / 1024;
            say!(
                "{} packets dropped because the ring buffer of {kib} KiB was full: give it more with -B {}.",
                stats.dropped,
                u64::from(kib) * 4
            );
        }
        self.detail(format_args!(
            "{} packets seen, {} captured, {} dropped, {} cut to the snapshot length",
            stats.seen, stats.captured, stats.dropped, stats.cut
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
