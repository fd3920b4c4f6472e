//! The moment at which a cgroup goes away.

use std::{
    ffi::OsString,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::Path,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::{Interest, unix::AsyncFd};

use crate::error::{Context, Result};

/// A watch of a cgroup's folder.
pub struct Removal {
    /// None for the root, which stays.
    name: Option<OsString>,
    watch: Watch,
}

struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Removal {
    /// Watches from here on. The parent's folder tells: the cgroup's own would only when nobody has it open any more.
    ///
    /// # Errors
    /// Where there is no folder, or it cannot be watched.
    pub fn watch(path: &Path, mount: &Path) -> Result<Self> {
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let watch = watch.context("watch cgroup", path.display())?;
        let parent = path.parent().filter(|_| path != mount);
        if let Some(parent) = parent {
            watch.add_watch(parent, AddWatchFlags::IN_DELETE).context("watch cgroup", path.display())?;
        }
        let name = parent.and(path.file_name()).map(ToOwned::to_owned);
        Ok(Self { name, watch: Watch(watch) })
    }

    /// Waits until the cgroup has gone. Inside a runtime.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub async fn wait(self) -> Result<()> {
        // SAFETY: the descriptor is the same and open as long as the watch is.
        let watch = unsafe { AsyncFd::register_with_interest(self.watch, Interest::READABLE) };
        let watch = watch.context("watch", "the cgroup")?;
        loop {
            let mut ready = watch.readable().await.context("watch", "the cgroup")?;
            let Ok(events) = watch.get_ref().0.read_events() else {
                ready.clear_ready();
                continue;
            };
            if events.iter().any(|event| event.name.is_some() && event.name == self.name) {
                return Ok(());
            }
        }
    }
}
