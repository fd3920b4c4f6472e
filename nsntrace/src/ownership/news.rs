//! What the kernel side tells of a process, read from the ring buffer.

use nsntrace_ebpf::ownership::{ARGUMENTS, Event, Exec, FILE, kind};

use super::words::Words;

/// What happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// When, in nanoseconds of `CLOCK_BOOTTIME`.
    pub time: u64,
    /// The process's number.
    pub pid: u32,
    /// The number of its user.
    pub user: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It begins, as a copy of this parent.
    Fork(u32),
    /// It becomes another program.
    Exec {
        /// The path that was executed, as it was given; empty where it is not known.
        file: String,
        /// Its words; empty where they are not known.
        words: Words,
    },
    /// It was there before it was followed. The time is that of its beginning.
    Present {
        /// The number of its parent.
        parent: u32,
        /// The path of its executable; empty where it is not known.
        file: String,
        /// Its words; empty where they are not known.
        words: Words,
    },
    /// It ends.
    Exit,
}

impl News {
    /// Reads a record; none if it is no such record.
    pub fn read(record: &[u8]) -> Option<Self> {
        let number = |at: usize| record.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes);
        let time = record.first_chunk().copied().map(u64::from_ne_bytes)?;
        let name = record.get(std::mem::offset_of!(Event, name)..)?.get(..nsntrace_ebpf::ownership::NAME)?;
        let kind = match number(std::mem::offset_of!(Event, kind))? {
            kind::FORK => Kind::Fork(number(std::mem::offset_of!(Event, parent))?),
            kind::EXEC => {
                let part = |at: usize, length: usize, most: usize| {
                    record.get(at..)?.get(..(number(length)? as usize).min(most))
                };
                let (file, arguments) =
                    (std::mem::offset_of!(Event, file), std::mem::offset_of!(Event, arguments));
                Kind::Exec {
                    file: text(part(std::mem::offset_of!(Exec, file), file, FILE)?),
                    words: Words::new(part(std::mem::offset_of!(Exec, arguments), arguments, ARGUMENTS)?),
                }
            }
            kind::EXIT => Kind::Exit,
            _ => return None,
        };
        let (pid, user) =
            (number(std::mem::offset_of!(Event, pid))?, number(std::mem::offset_of!(Event, user))?);
        Some(Self { time, pid, user, name: text(until_zero(name)), kind })
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Names are whatever somebody chose.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
