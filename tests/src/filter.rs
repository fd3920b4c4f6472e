//! What the filter is held against: libpcap's own interpreter, and the kernel that runs the translation.

pub mod frames;
mod kernel;
mod libpcap;
pub mod random;

pub use kernel::{Loaded, Program, TEST_RUN_TAKES, alone_at_new_sockets, attached};
pub use libpcap::{Oracle, compile};

/// Expressions over the whole of the language, by their lines.
pub fn expressions() -> impl Iterator<Item = &'static str> {
    include_str!("filter/expressions.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}
