//! The life of a program's tree: what it is told, when it is ended by force, and when it is over.

use std::{io::IsTerminal, time::Duration};

use nix::{
    sys::signal::{Signal, raise},
    unistd::{Pid, getpgid, getpgrp, tcgetpgrp},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};

use crate::{
    error::{Context, Result},
    host::cgroup_leaf::Events,
    signals::{Message, SignalStream, send},
    tracee::{News, news},
    tree::Tree,
    words::{Voice, process, say},
};

/// How long a tree may take to end when it was asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// A second request within this time is the same one, come by way of the process group too.
pub const SAME_REQUEST: Duration = Duration::from_millis(500);

/// How long a tree may outlive its program before it is said who is left.
const LINGER: Duration = Duration::from_secs(1);

/// A running program and its descendants.
pub struct Life {
    program: String,
    pid: Pid,
    tree: Tree,
    events: AsyncFd<Events>,
    signals: SignalStream,
    voice: Voice,
    /// The program's exit status, once it has ended.
    status: Option<u8>,
    /// Whether we have stopped ourselves because the program was stopped.
    stopped: bool,
    asked: Option<Instant>,
    kill_at: Option<Instant>,
    is_killed: bool,
    tell_at: Option<Instant>,
    looks: Looks,
}

/// What happens in a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants to know the counts.
    Report,
    /// The tree is empty; the program had this exit status.
    Ended(u8),
}

impl Life {
    /// Follows the tree of the program `pid`. Inside a runtime.
    ///
    /// # Errors
    /// Where the cgroup cannot be watched.
    pub fn new(program: String, pid: Pid, tree: Tree, signals: SignalStream, voice: Voice) -> Result<Self> {
        // SAFETY: the descriptor is the same and open as long as the events are.
        let events = unsafe { AsyncFd::register_with_interest(tree.events()?, Interest::PRIORITY) };
        let events = events.context("watch", "the cgroup")?;
        Ok(Self {
            program,
            pid,
            tree,
            events,
            signals,
            voice,
            status: None,
            stopped: false,
            asked: None,
            kill_at: None,
            is_killed: false,
            tell_at: None,
            looks: Looks::begin(),
        })
    }

    /// The next event. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// Where the kernel does not say whether the tree is empty.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(status) = self.status
                && !self.events.get_mut().is_populated()?
                && self.tree.adopted().is_empty()
            {
                return Ok(Event::Ended(status));
            }
            tokio::select! {
                message = self.signals.next() => if self.take(message) { return Ok(Event::Report) },
                ready = self.events.ready(Interest::PRIORITY) => ready.context("watch", "the cgroup")?.clear_ready(),
                () = at(self.kill_at) => {
                    self.kill_at = None;
                    self.is_killed = true;
                    self.kill();
                }
                () = at(self.tell_at) => {
                    self.tell_at = None;
                    self.tell_who_is_left();
                }
                () = at(self.looks.next) => self.look(),
            }
        }
    }

    /// Asks the tree to end, as a SIGTERM to us does.
    pub fn ask_to_end(&mut self) {
        self.end(Message { signal: Signal::SIGTERM, from_terminal: false });
    }

    /// Waits until a signal asks for the end.
    pub async fn asked_to_end(&mut self) {
        self.signals.asked_to_end().await;
    }

    /// True if the counts are wanted.
    fn take(&mut self, message: Message) -> bool {
        match message.signal {
            Signal::SIGUSR1 => return true,
            Signal::SIGCHLD => {
                news().for_each(|news| self.hear(news));
                if self.is_killed {
                    self.kill();
                }
            }
            Signal::SIGCONT if self.stopped => {
                self.stopped = false;
                send(self.pid, Signal::SIGCONT);
            }
            Signal::SIGCONT => {}
            _ => self.end(message),
        }
        false
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Ended(pid, status) if self.is_program(pid) => {
                self.status = Some(status);
                match self.asked {
                    // The others were not told: only the program was.
                    Some(_) => self.tree.signal(Signal::SIGTERM),
                    None => self.tell_at = Some(Instant::now() + LINGER),
                }
            }
            News::Stopped(pid) if self.is_program(pid) && self.has_the_terminal() => {
                // The shell waits for us: it must see that its job is stopped, or the terminal belongs to nobody.
                self.stopped = true;
                let _ = raise(Signal::SIGSTOP);
            }
            _ => {}
        }
    }

    /// Whether it is the program: its number may come again when it has ended.
    fn is_program(&self, pid: Pid) -> bool {
        pid == self.pid && self.status.is_none()
    }

    /// Whether the program is in our process group and that is in the foreground.
    fn has_the_terminal(&self) -> bool {
        let stdin = std::io::stdin();
        let own = getpgrp();
        stdin.is_terminal() && tcgetpgrp(&stdin) == Ok(own) && getpgid(Some(self.pid)) == Ok(own)
    }

    fn end(&mut self, message: Message) {
        if self.status.is_some() {
            return self.insist(Signal::SIGTERM);
        }
        if !message.from_terminal || !self.has_heard(message.signal) {
            send(self.pid, message.signal);
        }
        if matches!(message.signal, Signal::SIGTERM | Signal::SIGHUP) {
            self.insist(message.signal);
        }
    }

    /// Whether the terminal has sent a signal to the program as well: a key's goes to a whole process group, the end of the
    /// terminal to the first of a session alone.
    fn has_heard(&self, signal: Signal) -> bool {
        signal != Signal::SIGHUP && getpgid(Some(self.pid)) == Ok(getpgrp())
    }

    /// Gives the tree some time, and none when asked again.
    fn insist(&mut self, signal: Signal) {
        let now = Instant::now();
        match self.asked {
            Some(asked) if now - asked < SAME_REQUEST => {}
            Some(_) => self.kill_at = Some(now),
            None => {
                self.asked = Some(now);
                self.kill_at = Some(now + PATIENCE);
                if self.status.is_some() {
                    self.tree.signal(signal);
                }
            }
        }
    }

    fn kill(&self) {
        self.tree.kill();
        // It may be nowhere where its tree is looked for.
        if self.status.is_none() {
            send(self.pid, Signal::SIGKILL);
        }
    }

    /// Looks whether somebody has gone where no packet is captured, and says so once.
    fn look(&mut self) {
        let has_run = self.tree.has_run();
        match has_run.then(|| self.tree.absent()).flatten() {
            None => self.looks.go_on(has_run),
            Some(pid) => {
                say!(
                    "nsntrace: {} is in another network namespace: what it sends and receives there is not in the trace.",
                    process(pid)
                );
                self.looks.next = None;
            }
        }
    }

    fn tell_who_is_left(&self) {
        let left: Vec<_> = self.tree.processes().into_iter().map(process).collect();
        if !left.is_empty() {
            self.voice.goes_on(&self.program, &left.join(", "));
        }
    }
}

/// When the tree is looked at, at first often and then once a second: nothing tells when a process changes its namespace.
/// Less often while nobody runs: to wake up is what a trace of an idle program costs.
struct Looks {
    next: Option<Instant>,
    pause: Duration,
}

impl Looks {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(1);
    const LONGEST_IDLE: Duration = Duration::from_secs(4);

    fn begin() -> Self {
        Self { next: Some(Instant::now() + Self::FIRST), pause: Self::FIRST }
    }

    fn go_on(&mut self, has_run: bool) {
        self.pause = (2 * self.pause).min(if has_run { Self::LONGEST } else { Self::LONGEST_IDLE });
        self.next = Some(Instant::now() + self.pause);
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
