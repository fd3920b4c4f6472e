//! A program that a process runs, or has run: a process is one after the other.

use std::{fmt, time::Duration};

use super::words::Words;
use crate::words::{as_a_shell_has_it, plain};

/// A process, from its beginning or from when it became this program, to its end or until it became another.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// When it became this program, in nanoseconds of `CLOCK_BOOTTIME`,
    pub(super) since: u64,
    /// and since the epoch.
    pub(super) became: Duration,
    /// When the process began, since the epoch.
    pub(super) began: Duration,
    /// When it ended, or became another program.
    pub(super) ended: Option<Duration>,
    /// Whether it became another program.
    pub(super) is_replaced: bool,
    pub(super) pid: u32,
    /// Its parent's number and name, where they are known.
    pub(super) parent: Option<(u32, String)>,
    pub(super) user: u32,
    pub(super) name: String,
    /// Empty where it is not known.
    pub(super) file: String,
    /// Empty where they are not known.
    pub(super) words: Words,
    /// Packets that it owned, and how many of them are in files before the present one.
    pub(super) packets: u64,
    pub(super) earlier: u64,
}

impl Run {
    /// Packets that it owned of the present file.
    pub(super) fn packets_here(&self) -> u64 {
        self.packets - self.earlier
    }
}

/// One line, with nothing in it that a terminal would obey.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self { pid, user, .. }, packets) = (self, self.packets_here());
        write!(f, "process {pid} {}", plain(&self.name))?;
        if let Some((parent, name)) = &self.parent {
            write!(f, ", parent {}", format!("{parent} {}", plain(name)).trim_end())?;
        }
        write!(f, ", user {user}, from {}", Seconds(self.began))?;
        if let Some(ended) = self.ended {
            let what = if self.is_replaced { "until" } else { "to" };
            write!(f, " {what} {}", Seconds(ended))?;
        }
        write!(f, ", {packets} packets")?;
        if !self.file.is_empty() {
            write!(f, ", {}", plain(&self.file))?;
        }
        if !self.words.is_empty() {
            write!(f, ": {}", as_a_shell_has_it(self.words.iter()))?;
        }
        Ok(())
    }
}

/// Seconds since the epoch, as tools show the times of packets.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.as_secs(), self.0.subsec_nanos())
    }
}
