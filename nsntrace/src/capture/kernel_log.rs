//! Messages of the kernel side, passed on to the log.

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
    pub async fn pass_on(self) {
        // SAFETY: the descriptor is the same and open as long as the logger.
        let log = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) };
        let Ok(mut log) = log else { return };
        while let Ok(mut ready) = log.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}
