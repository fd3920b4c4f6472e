//! Colours, where they are wanted.

use std::{env, ffi::OsStr, io::IsTerminal};

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// The head of a table.
    Bold,
    /// Something failed.
    Red,
    /// Something is not as it should be.
    Yellow,
}

/// Paints, or does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    pub(super) is_on: bool,
}

impl Paint {
    /// As stderr takes it: a terminal that can, unless `NO_COLOR` is set, see <https://no-color.org>.
    pub(super) fn for_stderr() -> Self {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == OsStr::new("dumb"));
        Self { is_on: std::io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb }
    }

    /// The text in this colour.
    pub(super) fn paint(self, colour: Option<Colour>, text: &str) -> String {
        let code = match colour {
            Some(Colour::Bold) => "1",
            Some(Colour::Red) => "31",
            Some(Colour::Yellow) => "33",
            None => return text.to_owned(),
        };
        if self.is_on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
