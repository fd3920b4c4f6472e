//! A namespace of nsntrace's on a host of its own, with a shell in it.

use anyhow::Result;
use nsntrace_tests::{Done, HOST_ADDRESS, Job, Lab, SERVER_ADDRESS, Server};

use crate::sender::{SHELL, Sender};

/// One, and a server in the internet. Who shared a host would pay for the rules of the others.
pub struct Namespace {
    /// The shell; its process is the tracer.
    pub sender: Sender,
    /// A process in the namespace.
    inside: String,
    _server: Server,
    lab: Lab,
}

impl Namespace {
    /// Traces with these options; what is sent goes into a sink.
    pub fn new(options: &[&str]) -> Result<Self> {
        Self::with(|lab| lab.udp_sink(9), |lab| lab.nsntrace(options.iter().chain(&SHELL)))
    }

    /// The same with another server, and another tracer of [`SHELL`]. The first packet has passed when it returns.
    pub fn with(
        serve: impl FnOnce(&Lab) -> Result<Server>,
        trace: impl FnOnce(&Lab) -> Result<Job>,
    ) -> Result<Self> {
        let lab = Lab::new()?;
        let server = serve(&lab)?;
        let mut sender = Sender::start(trace(&lab)?, SERVER_ADDRESS)?;
        let inside = sender.ask("echo $$")?;
        sender.flood(1)?;
        Ok(Self { sender, inside, _server: server, lab })
    }

    /// Waits until the capture has ended, if that was to be of the first packet: from then on nothing captures.
    pub fn capture_ends(&mut self) -> Result<()> {
        self.sender.complains("Finished")
    }

    /// A shell in the internet, whose packets go to the host.
    pub fn sender_outside(&self) -> Result<Sender> {
        Sender::start(self.lab.internet(SHELL)?, HOST_ADDRESS)
    }

    /// A command in the namespace.
    pub fn inside(&self, words: &[&str]) -> Result<Job> {
        let enter = ["nsenter", "--target", &self.inside, "--net"];
        self.lab.host(enter.iter().chain(words))
    }

    /// Its device.
    pub fn device(&self) -> String {
        format!("nscap{}", self.sender.pid())
    }

    /// Ends it.
    pub fn end(self) -> Result<Done> {
        self.sender.end()
    }
}
