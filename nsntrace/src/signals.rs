//! Signals as messages: nothing is interrupted, and the program is told what it should be told.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::error::{Context, Result};

/// Signals that ask for an end.
const ENDINGS: [Signal; 5] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGABRT, Signal::SIGTERM];

/// Signals that are taken as messages besides.
const OTHERS: [Signal; 3] = [Signal::SIGUSR1, Signal::SIGCHLD, Signal::SIGCONT];

/// A write beyond the limit of a file's size is to fail, not to end us.
const IGNORED: Signal = Signal::SIGXFSZ;

/// Signals, read from a descriptor.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    dispositions: Dispositions,
}

/// What the program's signals are to be: the defaults, but for a hangup that nohup has switched off.
#[derive(Clone, Copy, Debug)]
pub struct Dispositions {
    keep_hangup_ignored: bool,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which.
    pub signal: Signal,
    /// Whether the kernel sent it, as for Ctrl-C: then it went to the whole foreground group.
    pub from_terminal: bool,
}

impl Message {
    /// Whether it is a request to end.
    pub fn asks_for_end(self) -> bool {
        ENDINGS.contains(&self.signal)
    }
}

impl Signals {
    /// Takes signals over from here on, in this thread and those that it starts.
    ///
    /// Those that ask for an end are ignored too: that reaches through exec to the helpers that change the host, so
    /// that Ctrl-C does not end one of them half way. A blocked signal comes as a message though it is ignored.
    ///
    /// Ctrl-Z, and what stops who touches another's terminal, is held off until [`Stoppable`]: a stop half way through a change
    /// of the host would hold up other runs.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn take_over() -> Result<Self> {
        let mut set = SigSet::empty();
        set.extend(ENDINGS.into_iter().chain(OTHERS));
        set.thread_block().context("block", "signals")?;
        Stoppable::set().thread_block().context("block", "signals")?;
        set_action(IGNORED, SigHandler::SigIgn)?;
        let hangup = set_action(Signal::SIGHUP, SigHandler::SigIgn)?;
        for signal in ENDINGS {
            set_action(signal, SigHandler::SigIgn)?;
        }
        let keep_hangup_ignored = matches!(hangup, SigHandler::SigIgn);
        if keep_hangup_ignored {
            set.remove(Signal::SIGHUP);
        }
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Self { fd: fd.context("read", "signals")?, dispositions: Dispositions { keep_hangup_ignored } })
    }

    /// What the program gets.
    pub fn dispositions(&self) -> Dispositions {
        self.dispositions
    }

    /// A signal that asks for an end and has come already.
    pub fn pending_end(&self) -> Option<Signal> {
        std::iter::from_fn(|| self.read())
            .find(|message| message.asks_for_end())
            .map(|message| message.signal)
    }

    /// Waits until something else can be read, or for a signal that asks for an end: which, if that came first.
    ///
    /// # Errors
    /// Where the kernel does not let us wait.
    pub fn end_before(&self, other: BorrowedFd<'_>) -> Result<Option<Signal>> {
        loop {
            if let Some(signal) = self.pending_end() {
                return Ok(Some(signal));
            }
            let mut fds = [self.fd.as_fd(), other].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => {}
                result => {
                    result.context("wait for", "signals")?;
                }
            }
            if fds[1].any() == Some(true) {
                return Ok(None);
            }
        }
    }

    /// A stream of the messages. Inside a runtime.
    ///
    /// # Errors
    /// Where the descriptor cannot be waited for.
    pub fn stream(self) -> Result<SignalStream> {
        // SAFETY: the descriptor is the same and open as long as self.
        let fd = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        fd.map(SignalStream).context("wait for", "signals")
    }

    fn read(&self) -> Option<Message> {
        let info = self.fd.read_signal().ok()??;
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())?;
        Some(Message { signal, from_terminal: info.ssi_code == libc::SI_KERNEL })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_fd().as_raw_fd()
    }
}

/// See [`Signals::stream`].
#[derive(Debug)]
pub struct SignalStream(AsyncFd<Signals>);

impl SignalStream {
    /// Waits until a message asks for the end.
    pub async fn asked_to_end(&self) {
        while !self.next().await.asks_for_end() {}
    }

    /// The next message.
    pub async fn next(&self) -> Message {
        loop {
            // It fails only when the runtime ends, and with it whoever waits here.
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            match self.0.get_ref().read() {
                Some(message) => return message,
                None => ready.clear_ready(),
            }
        }
    }
}

/// While it lives, Ctrl-Z stops this process as any other.
#[derive(Debug)]
pub struct Stoppable;

impl Stoppable {
    /// Lets it be stopped from here on. In the thread that has taken the signals over.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn begin() -> Result<Self> {
        Self::set().thread_unblock().context("unblock", "signals")?;
        Ok(Self)
    }

    /// Does something in between, which Ctrl-Z does not stop half way.
    pub fn except<T>(&self, work: impl FnOnce() -> T) -> T {
        Self::hold_off();
        let result = work();
        // As below.
        let _ = Self::set().thread_unblock();
        result
    }

    fn hold_off() {
        // It fails for a set that is none, and this is one.
        let _ = Self::set().thread_block();
    }

    fn set() -> SigSet {
        [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU].into_iter().collect()
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        Self::hold_off();
    }
}

/// Lets SIGUSR1 wait until signals are taken over: it asks for the counts, and must not end us while there are none.
///
/// # Errors
/// Where the kernel refuses it.
pub fn hold_reports() -> Result<()> {
    SigSet::from(Signal::SIGUSR1).thread_block().context("block", "signals")
}

/// Makes children wait to be asked for, whatever the parent has left us: where SIGCHLD is ignored they are gone at once.
///
/// # Errors
/// Where the kernel refuses it.
pub fn keep_children() -> Result<()> {
    set_action(Signal::SIGCHLD, SigHandler::SigDfl).map(|_| ())
}

impl Dispositions {
    /// Makes them the calling process's: between fork and exec.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn apply(self) -> nix::Result<()> {
        // A broken pipe is ignored in every program of Rust's.
        for signal in ENDINGS.into_iter().chain(OTHERS).chain([IGNORED, Signal::SIGPIPE]) {
            let keep = signal == Signal::SIGHUP && self.keep_hangup_ignored;
            let action = if keep { SigHandler::SigIgn } else { SigHandler::SigDfl };
            let action = SigAction::new(action, SaFlags::empty(), SigSet::empty());
            // SAFETY: no handler is installed.
            unsafe { sigaction(signal, &action) }?;
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
    }
}

/// Sends a signal to one process; one that is gone needs none.
pub fn send(pid: Pid, signal: Signal) {
    let _ = nix::sys::signal::kill(pid, signal);
}

fn set_action(signal: Signal, handler: SigHandler) -> Result<SigHandler> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is installed.
    let before = unsafe { sigaction(signal, &action) };
    Ok(before.context("ignore", signal)?.handler())
}
