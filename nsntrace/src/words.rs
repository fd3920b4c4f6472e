//! What is said on stderr. Stdout is the program's.

mod log;
mod voice;

use std::{
    borrow::Cow,
    fmt::{self, Display, Write},
};

pub use log::Log;
pub use voice::Voice;

use crate::proc;

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

impl Display for Plain<'_> {
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

/// What a process is called, and its number. Its name is whatever somebody chose.
pub fn process(pid: impl Display) -> String {
    let name = proc::text(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} ({pid})", plain(name.trim_end()))
}

/// The lines of another program's message as one.
pub fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}
