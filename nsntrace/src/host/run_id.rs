//! The name of a run, by which everything of it is known.

use std::{fmt, str::FromStr};

/// How the word begins by which what is ours is known.
pub(super) const OURS: &str = "nsntrace:";

/// The name of a run: eight hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(u32);

impl RunId {
    /// Some name.
    pub fn random() -> Self {
        Self(fastrand::u32(..))
    }

    /// The word by which rules and links name their run.
    pub fn tag(self) -> String {
        format!("{OURS}{self}")
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for RunId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u32::from_str_radix(text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_eight_digits() {
        assert_eq!(RunId(0xab).to_string(), "000000ab");
        assert_eq!("000000ab".parse(), Ok(RunId(0xab)));
    }
}
