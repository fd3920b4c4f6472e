//! Messages of the kernel side, passed on to the log.

use std::os::fd::AsRawFd;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

use crate::error::{Context, Result};

/// The kernel side's messages.
pub struct KernelLog(EbpfLogger<&'static dyn log::Log>);

impl KernelLog {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        EbpfLogger::init(ebpf).map(Self).context("read", "the kernel side's messages")
    }

    /// Passes messages on as they come. Never returns, unless they cannot be waited for.
    pub async fn pass_on(&mut self) {
        // SAFETY: the descriptor is the same and open as long as the logger.
        let log = unsafe { AsyncFd::register_with_interest(self.0.as_raw_fd(), Interest::READABLE) };
        let Ok(log) = log else { return };
        while let Ok(mut ready) = log.readable().await {
            self.0.flush();
            ready.clear_ready();
        }
    }
}

impl Drop for KernelLog {
    /// Passes on what has come since: a program may end in the same moment as its packets find no room.
    fn drop(&mut self) {
        self.0.flush();
    }
}
