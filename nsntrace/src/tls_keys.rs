//! `--tls-keys`: the program logs the secrets of its TLS connections, and the trace opens by them.
//!
//! The program's `SSLKEYLOGFILE` is a file on a tmpfs of its own view. A pipe would block or end who logs when nobody
//! reads, and mix the lines of several; a file takes what is appended whenever it is opened, by whom ever of the tree.
//!
//! Who reads a trace once, from front to back, needs the secrets before the packets that they open. So before a batch
//! of packets is written, what was logged by then is read and goes before them. A handshake needs more: the secrets are
//! made of the server's answer, and that was captured before they can be logged. Such an answer is held back, and the
//! packets behind it, until its connection's secrets are there.

mod file;
mod handshakes;
mod line;
mod recent;

use std::{fs::File, io::Write, time::Instant};

pub use file::KeyFile;
use handshakes::Handshakes;
use line::Line;
use nsntrace_ebpf::RecordHeader;
use recent::Recent;

use crate::words::say;

/// The variable that names the file.
pub const VARIABLE: &str = "SSLKEYLOGFILE";

/// The secrets of a trace, and what waits for them.
#[derive(Debug)]
pub struct Keys {
    file: KeyFile,
    /// Where the program would have logged them without us.
    also: Option<File>,
    recent: Recent,
    handshakes: Handshakes,
}

impl Keys {
    /// The secrets that are logged in `file`, to be appended to another one too.
    pub fn new(file: KeyFile, also: Option<File>) -> Self {
        Self { file, also, recent: Recent::default(), handshakes: Handshakes::default() }
    }

    /// What was logged since the last call, in whole lines; empty if nothing was.
    pub fn news(&mut self) -> String {
        let Self { file, recent, .. } = self;
        let mut text = String::new();
        file.read(|bytes| {
            if let Some(line) = Line::parse(bytes) {
                text.push_str(line.text());
                text.push('\n');
                recent.push(line);
            }
        });
        self.pass_on(&text);
        text
    }

    /// What was logged lately, for a file that begins.
    pub fn recent(&self) -> String {
        self.recent.text()
    }

    /// Looks at a packet that goes to `place` in what is not written yet: from there on may have to wait.
    pub fn see(&mut self, header: &RecordHeader, packet: &[u8], place: usize) {
        if let Some(random) = self.handshakes.see(header, packet)
            && !self.recent.opens(&random)
        {
            self.handshakes.wait(random, place, Instant::now());
        }
    }

    /// From which place on it waits.
    pub fn held_from(&self) -> Option<usize> {
        self.handshakes.held_from()
    }

    /// Lets go what has its secrets, or waited for too long.
    pub fn let_go(&mut self) {
        let Self { recent, handshakes, .. } = self;
        handshakes.let_go(Instant::now(), |random| recent.opens(random));
    }

    /// Lets everything go.
    pub fn let_all_go(&mut self) {
        self.handshakes.let_all_go();
    }

    /// What waits has moved by so many bytes: to the back, as something went before it.
    pub fn move_back(&mut self, bytes: usize) {
        self.handshakes.move_places(|place| place + bytes);
    }

    /// The same to the front, as so many bytes were written.
    pub fn move_to_front(&mut self, bytes: usize) {
        self.handshakes.move_places(|place| place.saturating_sub(bytes));
    }

    /// Appends it to the other file, until that takes no more.
    fn pass_on(&mut self, text: &str) {
        let Some(also) = self.also.as_mut().filter(|_| !text.is_empty()) else { return };
        if let Err(error) = also.write_all(text.as_bytes()) {
            say!("nsntrace: cannot write to the file of {VARIABLE}: {error}: keys go into the trace alone");
            self.also = None;
        }
    }
}
