//! Resource limits: room for a trace, and what the program gets back.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::error::{Context, Error, Result};

/// Descriptors that a trace has open at the same time, at most.
const NEEDED: rlim_t = 96;

/// What a program usually may have open: more is of use for name look-ups.
const USUAL: rlim_t = 1024;

/// Resource limits that must be what they were for the program, whatever was raised for ourselves.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    memlock: (rlim_t, rlim_t),
    nofile: (rlim_t, rlim_t),
}

impl Limits {
    /// Notes the limits, and raises that of open files where a trace needs more: without descriptors nothing could be
    /// undone. Before anything is loaded into the kernel: on kernels before 5.11 aya lifts another one.
    ///
    /// # Errors
    /// Where a trace needs more than it may have.
    pub fn take_over() -> Result<Self> {
        let memlock = getrlimit(Resource::RLIMIT_MEMLOCK).context("read", "the limit of locked memory")?;
        let nofile = getrlimit(Resource::RLIMIT_NOFILE).context("read", "the limit of open files")?;
        make_room(nofile)?;
        Ok(Self { memlock, nofile })
    }

    /// Makes them the calling process's: between fork and exec.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn apply(self) -> nix::Result<()> {
        setrlimit(Resource::RLIMIT_MEMLOCK, self.memlock.0, self.memlock.1)?;
        setrlimit(Resource::RLIMIT_NOFILE, self.nofile.0, self.nofile.1)
    }
}

fn make_room((soft, hard): (rlim_t, rlim_t)) -> Result<()> {
    // What the caller has left open counts too. It cannot be read where nothing more can be opened.
    let open = fs::read_dir("/proc/self/fd").map_or(soft, |entries| entries.count() as rlim_t);
    let needed = open.saturating_add(NEEDED);
    let most = needed.max(USUAL).min(hard);
    if soft >= most && soft >= needed {
        return Ok(());
    }
    // Root may mostly raise the hard limit as well.
    let (soft, hard) = if most >= needed { (most, hard) } else { (needed, needed) };
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map_err(|_| {
        Error::told(format!(
            "a trace needs {needed} open files, and the limit here is {most}: raise it, as with 'ulimit -n {}'",
            needed.max(USUAL)
        ))
    })
}
