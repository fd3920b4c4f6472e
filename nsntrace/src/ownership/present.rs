//! Processes that are there before they are followed, and their sockets, by what /proc tells of them.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::Path,
};

use nix::unistd::{SysconfVar, sysconf};

use super::{
    news::{Kind, News},
    words::Words,
};
use crate::{cgroup, descriptors::made, proc};

/// The processes in a cgroup and below it, the oldest first.
pub fn processes(cgroup: &Path) -> Vec<News> {
    let mut processes: Vec<_> = cgroup::processes(cgroup).into_iter().filter_map(process).collect();
    processes.sort_by_key(|process| process.time);
    processes
}

/// None if it has ended meanwhile.
fn process(pid: u32) -> Option<News> {
    let text = |name: &str| proc::text(format!("/proc/{pid}/{name}")).ok();
    let (parent, time) = parent_and_start(&text("stat")?)?;
    let status = text("status")?;
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?;
    let file = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    Some(News {
        time,
        pid,
        user: user.parse().ok()?,
        name: text("comm")?.trim_end_matches('\n').to_owned(),
        kind: Kind::Present {
            parent,
            file: file.to_string_lossy().into_owned(),
            words: Words::new(&fs::read(format!("/proc/{pid}/cmdline")).ok()?),
        },
    })
}

/// The number of the parent, and when the process began in nanoseconds since the boot: fields 4 and 22 of proc_pid_stat(5),
/// where the second is a name with whatever in it.
fn parent_and_start(stat: &str) -> Option<(u32, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let ticks: u64 = fields.get(22 - 3)?.parse().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
    let start = ticks * (1_000_000_000 / per_second.filter(|ticks| *ticks > 0).unwrap_or(100));
    let start = start.checked_add_signed(-proc::added_to_boot_time())?;
    Some((fields.get(4 - 3)?.parse().ok()?, start))
}

/// Whether a process is there still.
pub fn is_there(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Has `look` look at the sockets of a process, one after the other: what it closes meanwhile is not really closed.
///
/// # Errors
/// Where the process may not be looked at, or the last that could not be had of its sockets.
pub fn each_socket(pid: u32, mut look: impl FnMut(OwnedFd)) -> io::Result<()> {
    let process = open(pid)?;
    let mut result = Ok(());
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let is_socket = |path: &Path| path.to_string_lossy().starts_with("socket:");
        if !fs::read_link(entry.path()).is_ok_and(|path| is_socket(&path)) {
            continue;
        }
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match take(&process, number) {
            Ok(socket) => look(socket),
            // Closed meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
            Err(error) => result = Err(error),
        }
    }
    result
}

/// A descriptor for a process.
fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers, and the call makes a descriptor.
    Ok(unsafe { made(libc::syscall(libc::SYS_pidfd_open, pid, 0)) }?)
}

/// A descriptor for what a process has open under this number.
fn take(process: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers, and the call makes a descriptor.
    Ok(unsafe { made(libc::syscall(libc::SYS_pidfd_getfd, process.as_fd().as_raw_fd(), number, 0)) }?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_name_may_have_anything_in_it() {
        let rest = " S 17 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 250 0 0";
        let (parent, start) = parent_and_start(&format!("5 (a) b 9 ) {rest}")).expect("valid");
        assert_eq!(parent, 17);
        assert_eq!(start % 250, 0);
        assert!(start >= 250_000_000, "{start}");
        assert_eq!(parent_and_start("5 (a"), None);
    }

    #[test]
    fn own_process_is_found() {
        let found = process(std::process::id()).expect("it is there");
        let Kind::Present { parent, words, .. } = found.kind else { panic!("{found:?}") };
        assert_eq!(parent, std::os::unix::process::parent_id());
        assert!(words.iter().count() == std::env::args().count() && is_there(found.pid));
        let _socket = TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut count = 0;
        each_socket(found.pid, |_| count += 1).expect("one's own");
        assert!(count > 0);
    }
}
