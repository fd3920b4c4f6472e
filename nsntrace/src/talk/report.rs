//! A summary, told on stderr: as a table for people, or as JSON for scripts.

mod json;
mod notes;
mod paint;
mod table;

use std::io::Write;

use nsntrace_ebpf::Counters;
use paint::Paint;

use super::Summary;
use crate::dissect::transport::protocol;

/// How a summary is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A table, as wide as the terminal.
    Table,
    /// One line with an object of JSON.
    Json,
}

/// Tells it, whatever else is not said: it was asked for.
pub fn tell(form: Form, summary: &Summary, counters: &Counters) {
    let text = match form {
        Form::Table => table::text(summary, Paint::for_stderr(), width()),
        Form::Json => json::text(summary, counters),
    };
    // Where stderr is closed there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// It in each of the forms, without colours.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn texts(summary: &Summary, counters: &Counters) -> [String; 2] {
    [table::text(summary, Paint { is_on: false }, Some(80)), json::text(summary, counters)]
}

/// Columns of the terminal, if stderr is one.
fn width() -> Option<usize> {
    // SAFETY: plain numbers, for which zeros are good values; the call writes them where it is told to.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        let result = libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &mut size);
        (result == 0).then_some(size)?
    };
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The name of a protocol.
fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp".into(),
        2 => "igmp".into(),
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        47 => "gre".into(),
        50 => "esp".into(),
        protocol::ICMPV6 => "icmpv6".into(),
        132 => "sctp".into(),
        other => format!("ip-{other}"),
    }
}
