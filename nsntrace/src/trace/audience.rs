//! Who a trace is for: without them it may be at its end, and the next packet that would tell may not come for long.

use std::{
    future::pending,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::error::{Context, Result};

/// Those whose going ends a trace: nobody, if nothing is said.
#[derive(Debug, Default)]
pub struct Audience {
    /// At the other end of stdout.
    reader: Option<AsyncFd<OwnedFd>>,
    /// At the other end of stdin, which says nothing as long as it wants the trace.
    starter: Option<AsyncFd<OwnedFd>>,
}

impl Audience {
    /// Whoever reads stdout. Inside a runtime.
    ///
    /// # Errors
    /// Where stdout is closed.
    pub fn of_stdout() -> Result<Self> {
        Ok(Self {
            reader: watch(io::stdout().as_fd(), Interest::ERROR).context("use", "stdout")?,
            starter: None,
        })
    }

    /// The same, and who has started us.
    ///
    /// # Errors
    /// Where stdout or stdin is closed.
    pub fn of_extcap() -> Result<Self> {
        let starter = watch(io::stdin().as_fd(), Interest::READABLE).context("use", "stdin")?;
        Ok(Self { starter, ..Self::of_stdout()? })
    }

    /// Waits until one of them has gone.
    pub async fn gone(&self) {
        tokio::select! {
            () = ready(self.reader.as_ref(), Interest::ERROR) => {}
            () = ready(self.starter.as_ref(), Interest::READABLE) => {}
        }
    }
}

/// None for a file or a device, behind which there is nobody.
fn watch(stream: BorrowedFd<'_>, interest: Interest) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    let stream = stream.try_clone_to_owned()?;
    // SAFETY: the descriptor is the same and open as long as its owner is.
    Ok(unsafe { AsyncFd::register_with_interest(stream, interest) }.ok())
}

async fn ready(stream: Option<&AsyncFd<OwnedFd>>, interest: Interest) {
    match stream {
        Some(stream) => drop(stream.ready(interest).await),
        None => pending().await,
    }
}
