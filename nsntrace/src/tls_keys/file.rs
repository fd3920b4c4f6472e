//! The file in which the program logs, read as it grows.

use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::FileExt},
};

use nix::fcntl::{FallocateFlags, fallocate};

use super::line::LONGEST;
use crate::page;

/// What is read at once, in bytes. A program that logs more meanwhile is not waited for.
const MOST: usize = 1 << 20;

/// A file that others append to.
#[derive(Debug)]
pub struct KeyFile {
    file: File,
    /// Up to where it is read.
    offset: u64,
    /// Up to where its memory is given back: there are zeros then.
    given_back: u64,
    /// The beginning of a line whose end is not there yet.
    unfinished: Vec<u8>,
}

impl KeyFile {
    /// Begins at the file's front. It is to be open for writing too.
    pub fn new(file: File) -> Self {
        Self { file, offset: 0, given_back: 0, unfinished: Vec::new() }
    }

    /// Reads what is new, and hands it out by lines, without their ends.
    pub(super) fn read(&mut self, mut take: impl FnMut(&[u8])) {
        let mut buffer = [0; 8 << 10];
        if self.is_written_anew() {
            (self.offset, self.given_back) = (0, 0);
            self.unfinished.clear();
        }
        let end = self.offset + MOST as u64;
        while self.offset < end {
            // What cannot be read is not there: it is memory.
            let length = self.file.read_at(&mut buffer, self.offset).unwrap_or(0);
            if length == 0 {
                break;
            }
            self.offset += length as u64;
            for piece in buffer[..length].split_inclusive(|byte| *byte == b'\n') {
                self.piece(piece, &mut take);
            }
        }
        self.give_back();
    }

    fn piece(&mut self, piece: &[u8], take: &mut impl FnMut(&[u8])) {
        // Zeros are what nobody has written: who goes on where the file had been emptied leaves them before it.
        let zeros = piece.iter().take_while(|byte| **byte == 0).count();
        let piece = if self.unfinished.is_empty() { &piece[zeros..] } else { piece };
        match piece.strip_suffix(b"\n") {
            Some(line) if self.unfinished.is_empty() => take(line),
            Some(rest) => {
                self.unfinished.extend_from_slice(rest);
                take(&self.unfinished);
                self.unfinished.clear();
            }
            // One byte more than a line may have: that it is too long is to be seen at its end.
            None => {
                let room = (LONGEST + 1).saturating_sub(self.unfinished.len());
                self.unfinished.extend_from_slice(&piece[..piece.len().min(room)]);
            }
        }
    }

    /// Whether somebody has emptied it, to write from its front: what was read is not there, or no zeros.
    fn is_written_anew(&self) -> bool {
        let mut last = [0];
        let is_there =
            self.offset == 0 || self.file.read_at(&mut last, self.offset - 1).is_ok_and(|length| length == 1);
        !is_there || self.given_back == self.offset && last != [0]
    }

    fn give_back(&mut self) {
        if self.offset == self.given_back {
            return;
        }
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // Whole pages that were given back already stay so: what is new there is not to be lost.
        let from = self.given_back - self.given_back % u64::from(page::size());
        let number = |of: u64| i64::try_from(of).unwrap_or(i64::MAX);
        // Where it cannot be given back, it is at the end of the trace.
        if fallocate(self.file.as_fd(), flags, number(from), number(self.offset - from)).is_ok() {
            self.given_back = self.offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::MetadataExt};

    use super::*;

    fn lines(file: &mut KeyFile) -> Vec<String> {
        let mut lines = Vec::new();
        file.read(|line| lines.push(String::from_utf8_lossy(line).into_owned()));
        lines
    }

    fn pair() -> (KeyFile, File) {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let appended = File::options().append(true).open(log.path()).expect("opened");
        (KeyFile::new(log.into_file()), appended)
    }

    #[test]
    fn lines_come_once_and_whole() {
        let (mut file, mut log) = pair();
        assert!(lines(&mut file).is_empty());
        log.write_all(b"one\ntw").expect("written");
        assert_eq!(lines(&mut file), ["one"]);
        log.write_all(b"o\n\nthree").expect("written");
        assert_eq!(lines(&mut file), ["two", ""]);
        log.write_all(b"\n").expect("written");
        assert_eq!(lines(&mut file), ["three"]);
    }

    #[test]
    fn an_emptied_file_is_read_anew() {
        let (mut file, mut log) = pair();
        log.write_all(b"one\ntwo, unfinished").expect("written");
        assert_eq!(lines(&mut file), ["one"]);
        log.set_len(0).expect("emptied");
        assert!(lines(&mut file).is_empty());
        log.write_all(b"three\n").expect("written");
        assert_eq!(lines(&mut file), ["three"]);
        log.set_len(0).expect("emptied");
        log.write_all(b"seven\n").expect("written");
        assert_eq!(lines(&mut file), ["seven"], "as long as before, and within one look");
        log.set_len(0).expect("emptied");
        log.write_all(b"more than before\n").expect("written");
        assert_eq!(lines(&mut file), ["more than before"]);
        log.set_len(0).expect("emptied");
        // As one does that was at this place when another has emptied it.
        let other = file.file.try_clone().expect("the same file, not only appended to");
        other.write_all_at(b"from afar\n", 100_000).expect("written");
        assert_eq!(log.metadata().expect("there").len(), 100_010);
        assert_eq!(lines(&mut file), ["from afar"]);
    }

    #[test]
    fn its_memory_is_bounded() {
        let (mut file, mut log) = pair();
        for _ in 0..40 {
            log.write_all(&[b'x'; 100_000]).expect("written");
            assert!(lines(&mut file).is_empty());
        }
        assert_eq!(file.unfinished.len(), LONGEST + 1);
        let found = log.metadata().expect("there");
        assert_eq!(found.len(), 4_000_000);
        assert!(found.blocks() * 512 < 500_000, "{}", found.blocks());
        log.write_all(b"\nend\n").expect("written");
        assert_eq!(lines(&mut file).last().map(String::as_str), Some("end"));
    }
}
