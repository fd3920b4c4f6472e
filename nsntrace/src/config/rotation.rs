//! When a trace goes on in another file.

use std::{num::NonZeroU32, time::Duration};

use super::Outfile;
use crate::{
    cli::Cli,
    error::{Error, Result},
};

/// When a trace goes on in another file: never, if nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// A file that is longer, in bytes, gets no more packets.
    pub size: Option<u64>,
    /// The time of a file, in whole seconds.
    pub period: Option<Duration>,
    /// The number of files, with a size in a ring for each period; without a size the capture ends after them.
    pub files: Option<NonZeroU32>,
}

impl Rotation {
    /// In tcpdump's units.
    pub(super) fn new(cli: &Cli) -> Result<Self> {
        let zero = |option| Error::told(format!("{option} 0: the least is 1"));
        let size = |millions: u64| match millions.checked_mul(1_000_000) {
            Some(0) => Err(zero("-C")),
            Some(bytes) => Ok(bytes),
            None => Err(Error::told(format!("-C {millions}: no file is that large"))),
        };
        let period = |seconds| if seconds == 0 { Err(zero("-G")) } else { Ok(Duration::from_secs(seconds)) };
        let files = |files| NonZeroU32::new(files).ok_or_else(|| zero("-W"));
        let rotation = Self {
            size: cli.file_size.map(size).transpose()?,
            period: cli.file_seconds.map(period).transpose()?,
            files: cli.file_count.map(files).transpose()?,
        };
        let goes_on = rotation.size.is_some() || rotation.period.is_some();
        if rotation.files.is_some() && !goes_on {
            return Err(Error::told("-W counts the files of -C or -G: give one of them, or both"));
        }
        if goes_on && Outfile::new(&cli.outfile) == Outfile::Stdout {
            return Err(Error::told("-C and -G make several files, and stdout is one: name a file with -o"));
        }
        Ok(rotation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

    #[test]
    fn rotation_is_as_tcpdump_has_it() {
        let rotation =
            |words: &str| -> Result<Rotation> { Ok(config(&words.split(' ').collect::<Vec<_>>())?.rotation) };
        assert_eq!(rotation("true").expect("valid"), Rotation::default());
        let all = Rotation {
            size: Some(2_000_000),
            period: Some(Duration::from_secs(3)),
            files: NonZeroU32::new(4),
        };
        assert_eq!(rotation("-C 2 -G 3 -W 4 true").expect("valid"), all);
        for words in
            ["-C 0", "-G 0", "-C 1 -W 0", "-W 3", "-C 18446744073709551615", "-C 1 -o -", "-G 1 -w -"]
        {
            let error = rotation(&format!("{words} true")).expect_err(words);
            assert!(error.to_string().starts_with('-'), "{error}");
        }
    }
}
