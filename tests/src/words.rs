//! What `nsntrace` says on stderr, read back.

use anyhow::{Context, Result, bail, ensure};

use crate::Done;

impl Done {
    /// N of the line `Finished capturing N packets.`
    pub fn captured(&self) -> Result<u64> {
        let line = self.line_with("Finished capturing ")?;
        number_before(line.trim_start_matches("Finished capturing "), " packet")
    }

    /// N of the line `N packets dropped …`, 0 without such a line.
    pub fn dropped(&self) -> Result<u64> {
        match self.line_with(" dropped") {
            Ok(line) => number_before(line, " packet"),
            Err(_) => Ok(0),
        }
    }

    /// The program's address, of the line `Your IP address in this trace is …`.
    pub fn address(&self) -> Result<&str> {
        let line = self.line_with("Your IP address in this trace is ")?;
        line.rsplit(' ').next().map(|word| word.trim_end_matches('.')).context("an empty line")
    }

    /// The one line that says why `nsntrace` itself failed: nothing else may be on stderr, and the status is 1.
    pub fn complaint(&self) -> Result<&str> {
        ensure!(
            self.status.code() == Some(1),
            "status {} in place of 1; stderr:\n{}",
            self.status,
            self.stderr
        );
        let lines = self.lines();
        let [line] = lines[..] else { bail!("not one line:\n{}", self.stderr) };
        ensure!(line.starts_with("nsntrace: "), "the line does not name nsntrace: {line:?}");
        Ok(line)
    }

    /// The lines of stderr, without the one that the host's forwarding is switched on: that depends on the host.
    pub fn lines(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| !line.contains("forwarding")).collect()
    }

    /// The first line of stderr that contains `text`.
    pub fn line_with(&self, text: &str) -> Result<&str> {
        let found = self.stderr.lines().find(|line| line.contains(text));
        found.with_context(|| format!("no line with {text:?} in:\n{}", self.stderr))
    }
}

/// The number at the beginning of `text`, which has to be followed by `unit`.
pub fn number_before(text: &str, unit: &str) -> Result<u64> {
    let text = text.trim_start_matches("nsntrace: ");
    let (number, _) = text.split_once(unit).with_context(|| format!("no {unit:?} in {text:?}"))?;
    number.trim().parse().with_context(|| format!("no number before {unit:?} in {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_words() {
        assert_eq!(number_before("42 packets.", " packet").ok(), Some(42));
        assert_eq!(number_before("nsntrace: 7 packets dropped", " packet").ok(), Some(7));
        assert!(number_before("some packets", " packet").is_err());
    }
}
