//! The words of a command line.

use std::{borrow::Cow, sync::Arc};

use nsntrace_ebpf::ownership::ARGUMENTS;

/// As they lie in a process's memory, each with a zero behind it. Processes that are copies share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Arc<[u8]>);

impl Words {
    /// The words there, or those of them that are in the first [`ARGUMENTS`] bytes.
    pub fn new(memory: &[u8]) -> Self {
        let memory = &memory[..memory.len().min(ARGUMENTS)];
        Self(memory.strip_suffix(&[0]).unwrap_or(memory).into())
    }

    /// Whether there are none, or they are not known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them. It is whatever somebody chose.
    pub fn iter(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let bytes = (!self.is_empty()).then_some(&self.0[..]);
        bytes.into_iter().flat_map(|bytes| bytes.split(|byte| *byte == 0)).map(String::from_utf8_lossy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_by_zeros() {
        let words = |memory: &[u8]| Words::new(memory).iter().map(Cow::into_owned).collect::<Vec<_>>();
        assert_eq!(words(b"a\0\0b c\0"), ["a", "", "b c"]);
        assert_eq!(words(b"a\0cu"), ["a", "cu"]);
        assert_eq!(words(b"a\xff\0"), ["a\u{fffd}"]);
        assert!(words(b"").is_empty() && words(b"\0").is_empty());
        assert_eq!(words(&[b'a'; 2 * ARGUMENTS])[0].len(), ARGUMENTS);
    }
}
