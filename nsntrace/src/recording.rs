//! A capture and the thread that writes it: one thing that begins, counts, and ends once.

use crate::{
    capture::{
        Capture,
        drain::{Drain, End, Outcome},
    },
    error::Result,
    words::{Voice, say},
};

/// A trace that is being written.
pub struct Recording {
    capture: Capture,
    drain: Drain,
    file: String,
    ring_bytes: u32,
    voice: Voice,
    is_over: bool,
}

impl Recording {
    /// Puts the two together. `file` is what the trace file is called.
    pub fn new(capture: Capture, drain: Drain, file: String, ring_bytes: u32, voice: Voice) -> Self {
        Self { capture, drain, file, ring_bytes, voice, is_over: false }
    }

    /// Says the counts so far.
    pub fn report(&self) {
        let stats = self.capture.stats();
        self.voice.report(self.drain.written(), &stats);
    }

    /// Says the number of packets so far, as a running count.
    pub fn count(&self) {
        if !self.is_over {
            self.voice.running_count(self.drain.written());
        }
    }

    /// Waits until the writing ends by itself, and ends the capture then. Never returns if it is over already.
    ///
    /// # Errors
    /// Where the capture cannot be ended.
    pub async fn ended_by_itself(&mut self) -> Result<()> {
        if self.is_over {
            return std::future::pending().await;
        }
        let outcome = self.drain.ended().await;
        self.capture.detach()?;
        self.conclude(outcome)
    }

    /// Ends it if it is not over: no packet is captured after this, and all before are in the file.
    ///
    /// # Errors
    /// Where the capture cannot be ended.
    pub async fn finish(&mut self) -> Result<()> {
        if self.is_over {
            return Ok(());
        }
        self.capture.detach()?;
        self.drain.stop();
        let outcome = self.drain.ended().await;
        self.conclude(outcome)
    }

    fn conclude(&mut self, outcome: Outcome) -> Result<()> {
        self.is_over = true;
        let stats = self.capture.stats();
        if let End::Broken(error) = &outcome.end
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            say!("nsntrace: cannot write to {}: {error}; the capture ended there", self.file);
        }
        // What a broken or satisfied writer leaves in the ring is nobody's loss: the capture had ended.
        self.voice.finished(outcome.packets, &stats, self.ring_bytes);
        Ok(())
    }
}
