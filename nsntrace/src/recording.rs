//! A capture and the thread that writes it: one thing that begins, counts, and ends once.

use std::os::fd::BorrowedFd;

use nsntrace_ebpf::Counters;

use crate::{
    capture::{
        Capture,
        drain::{Drain, End, Outcome},
    },
    error::Result,
    talk::Summary,
    words::{Voice, plain, say},
};

/// A trace that is being written.
pub struct Recording {
    capture: Capture,
    drain: Drain,
    ring_bytes: u32,
    voice: Voice,
    is_over: bool,
    is_broken: bool,
    summary: Option<Box<Summary>>,
}

impl Recording {
    /// Puts the two together.
    pub fn new(capture: Capture, drain: Drain, ring_bytes: u32, voice: Voice) -> Self {
        Self { capture, drain, ring_bytes, voice, is_over: false, is_broken: false, summary: None }
    }

    /// Says the counts so far.
    pub fn report(&self) {
        let counters = self.capture.counters();
        self.voice.report(self.drain.written(), &counters);
    }

    /// Says the number of packets so far, as a running count.
    pub fn count(&self) {
        if !self.is_over {
            self.voice.running_count(self.drain.written());
        }
    }

    /// What holds the capture to an interface, see [`Capture::links`].
    pub fn links(&self, interface: &str) -> Vec<BorrowedFd<'_>> {
        self.capture.links(interface)
    }

    /// Packets that pass from here on are none of the trace any more, though the capture goes on.
    pub fn close(&self) {
        self.capture.close();
    }

    /// Ends the capture, if it has not ended: nothing that passes from now on is recorded. What was captured is still
    /// being written; [`Recording::ended`] tells when that is done.
    ///
    /// # Errors
    /// Where the capture cannot be ended.
    pub fn stop(&mut self) -> Result<()> {
        let detached = self.capture.detach();
        // Whatever became of it: what was captured is to be written.
        self.drain.stop();
        detached
    }

    /// Waits until the file is complete, be it that the recording was stopped or that the writing ended by itself.
    /// Never returns if it was complete before.
    ///
    /// # Errors
    /// Where the capture cannot be ended.
    pub async fn ended(&mut self) -> Result<()> {
        if self.is_over {
            return std::future::pending().await;
        }
        let outcome = self.drain.ended().await;
        let detached = self.capture.detach();
        self.conclude(outcome);
        detached
    }

    /// Stops, and waits until the file is complete.
    ///
    /// # Errors
    /// Where the capture cannot be ended.
    pub async fn finish(&mut self) -> Result<()> {
        if self.is_over {
            return Ok(());
        }
        self.stop()?;
        self.ended().await
    }

    /// The same, unless somebody insists on the end before that.
    ///
    /// # Errors
    /// Where the capture cannot be ended.
    pub async fn finish_unless(&mut self, insisted: impl Future<Output = ()>) -> Result<()> {
        tokio::select! {
            finished = self.finish() => finished,
            () = insisted => {
                say!("nsntrace: ended while packets were still being written to the trace");
                Ok(())
            }
        }
    }

    /// Whether the file took no more before the end. A reader who goes away has enough.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Who talked to whom, and what was counted, if that was wanted and the file is complete.
    pub fn into_summary(self) -> Option<(Box<Summary>, Counters)> {
        let counters = self.capture.counters();
        self.summary.map(|summary| (summary, counters))
    }

    fn conclude(&mut self, outcome: Outcome) {
        self.is_over = true;
        self.summary = outcome.summary;
        let counters = self.capture.counters();
        if let End::Broken(error) = &outcome.end
            && error.errno() != Some(libc::EPIPE)
        {
            self.is_broken = true;
            say!("nsntrace: {}; the capture ended there", plain(&error.to_string()));
        }
        self.voice.finished(outcome.packets, &counters, self.ring_bytes);
        self.voice.missed(outcome.missed);
    }
}
