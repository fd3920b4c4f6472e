//! Covers stay in place while the program runs: where the host replaces a name, the kernel takes the cover of the old
//! one away.

use std::{fs::File, io::Read, os::fd::OwnedFd, sync::Arc};

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
}

impl Keeper {
    /// The keeper of the program `pid`, which was started with these covers.
    pub fn new(covers: Arc<Covers>, pid: Pid) -> Self {
        let namespace = File::open(format!("/proc/{pid}/ns/mnt"));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(format!("/proc/{pid}/root").as_str(), flags, Mode::empty());
        Self { covers, view: namespace.ok().zip(root.ok()) }
    }

    /// Keeps them in place. Never returns.
    pub async fn keep(&self) {
        if let Err(error) = self.follow().await {
            say!("nsntrace: {error}: names may be looked up past the trace, or not be found");
        }
        std::future::pending().await
    }

    async fn follow(&self) -> Result<()> {
        let watch = self.watch()?;
        let mut events = [0; 4096];
        loop {
            // Before the first event too: what happened until there was a watch it does not tell.
            self.renew()?;
            let mut ready = watch.readable().await.context("watch", "the host's folders")?;
            // Which of the names it was does not matter, and all of them are looked at.
            let _ = ready.try_io(|watch| watch.get_ref().read(&mut events));
        }
    }

    fn watch(&self) -> Result<AsyncFd<File>> {
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let watch = watch.context("watch", "the host's folders")?;
        for folder in self.covers.folders() {
            // A folder that is not there holds nothing that could be covered.
            let _ = watch.add_watch(&folder, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
        }
        let watch = File::from(OwnedFd::from(watch));
        // SAFETY: the descriptor is the same and open as long as the file is.
        let watch = unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) };
        watch.context("watch", "the host's folders")
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
