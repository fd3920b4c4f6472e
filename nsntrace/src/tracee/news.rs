//! What becomes of the program, and of orphans of its tree.

use nix::unistd::Pid;

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It has ended, with this status for a shell: its own, or 128 and the signal's number.
    Ended(Pid, u8),
    /// It was stopped by a signal.
    Stopped(Pid),
}

/// News of children, and of their orphans that have become ours, as far as there are any.
pub fn news() -> impl Iterator<Item = News> {
    std::iter::from_fn(|| {
        let mut status = 0;
        // SAFETY: it writes a status to the place given. The call of the nix crate loses a child that a real-time
        // signal has ended.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::WUNTRACED) };
        (pid > 0).then(|| (Pid::from_raw(pid), status))
    })
    .filter_map(|(pid, status)| match status {
        status if libc::WIFEXITED(status) => Some(News::Ended(pid, eight_bits(libc::WEXITSTATUS(status)))),
        status if libc::WIFSIGNALED(status) => {
            Some(News::Ended(pid, eight_bits(128 + libc::WTERMSIG(status))))
        }
        status if libc::WIFSTOPPED(status) => Some(News::Stopped(pid)),
        _ => None,
    })
}

/// The kernel keeps eight bits of a status, and signals end at 64.
fn eight_bits(status: i32) -> u8 {
    u8::try_from(status & 0xff).unwrap_or(u8::MAX)
}
