//! Covers stay in place while the program runs: where the host replaces a name, the kernel takes the cover of the old
//! one away.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use nix::{
    fcntl::{OFlag, open},
    sched::{CloneFlags, setns, unshare},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        stat::Mode,
    },
    unistd::Pid,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::covers::Covers;
use crate::{
    error::{Context, Result},
    own_thread,
    words::say,
};

/// The covers of a running program.
#[derive(Debug)]
pub struct Keeper {
    covers: Arc<Covers>,
    /// The program's mount namespace and root; none if it has ended already.
    view: Option<(File, OwnedFd)>,
    /// What tells of names that are replaced.
    watch: nix::Result<Inotify>,
}

impl Keeper {
    /// The keeper of the program `pid`, which was started with these covers.
    pub fn new(covers: Arc<Covers>, pid: Pid) -> Self {
        let namespace = File::open(format!("/proc/{pid}/ns/mnt"));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(format!("/proc/{pid}/root").as_str(), flags, Mode::empty());
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        Self { covers, view: namespace.ok().zip(root.ok()), watch }
    }

    /// What it watches by. Whoever closes the last one waits for the kernel.
    pub fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().ok().map(AsFd::as_fd)
    }

    /// Keeps them in place. Never returns.
    pub async fn keep(&self) {
        if let Err(error) = self.follow().await {
            say!("nsntrace: {error}: names may be looked up past the trace, or not be found");
        }
        std::future::pending().await
    }

    async fn follow(&self) -> Result<()> {
        let watch = self.watch.as_ref().map_err(|error| *error).context("watch", "the host's folders")?;
        // SAFETY: the descriptor is the same and open as long as the watch is.
        let news = unsafe { AsyncFd::register_with_interest(watch.as_fd().as_raw_fd(), Interest::READABLE) };
        let news = news.context("watch", "the host's folders")?;
        loop {
            // What happened until there was a watch it does not tell: so it comes first.
            self.watch_folders(watch);
            self.renew()?;
            let mut ready = news.readable().await.context("watch", "the host's folders")?;
            // Which of the names it was does not matter, and all of them are looked at.
            let _ = ready.try_io(|_| Ok(watch.read_events()?));
        }
    }

    /// In place of a folder that is not there, what it would be in is watched. A folder that is watched already is watched
    /// once; one that was made anew is another.
    fn watch_folders(&self, watch: &Inotify) {
        for folder in self.covers.folders() {
            let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
            let _ = folder.ancestors().find(|folder| watch.add_watch(*folder, flags).is_ok());
        }
    }

    /// A thread enters a mount namespace if it shares root and working directory with no other.
    fn renew(&self) -> Result<()> {
        let Some((namespace, root)) = &self.view else { return Ok(()) };
        let visit = || {
            unshare(CloneFlags::CLONE_FS)
                .and_then(|()| setns(namespace, CloneFlags::CLONE_NEWNS))
                .context("enter", "the program's mount namespace")?;
            self.covers.renew_all(root)
        };
        own_thread::run(visit).context("start", "a thread")?
    }
}
