//! Lets one system call of a program fail: `fail CALL WORD NUMBER ERRNO LOG PROGRAM [ARGUMENTS]...`.
//!
//! Only the calls count that are about a file with WORD in its name; an empty WORD is in all of them. The NUMBER-th,
//! in whichever of the program's threads and children, is not made and returns ERRNO. With a + after NUMBER so do all
//! later ones; 0 lets them all pass. LOG gets a line for each, with the file that it is about. A child that executes
//! another program is left alone. strace can do nearly the same, but counts the calls of each thread by itself.

use std::collections::HashSet;
use std::env;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execvp, fork};

/// The argument that tells what a call is about.
#[derive(Clone, Copy)]
enum About {
    Nothing,
    /// A descriptor, in this argument.
    Fd(usize),
    /// A path, at the address in this argument.
    Path(usize),
}
use About::{Fd, Nothing, Path};

const CALLS: &[(&str, i64, About)] = &[
    ("bind", libc::SYS_bind, Fd(0)),
    ("bpf", libc::SYS_bpf, Nothing),
    ("clone", libc::SYS_clone, Nothing),
    ("clone3", libc::SYS_clone3, Nothing),
    ("dup", libc::SYS_dup, Fd(0)),
    ("dup3", libc::SYS_dup3, Fd(0)),
    ("epoll_create1", libc::SYS_epoll_create1, Nothing),
    ("epoll_ctl", libc::SYS_epoll_ctl, Fd(2)),
    ("eventfd2", libc::SYS_eventfd2, Nothing),
    ("fcntl", libc::SYS_fcntl, Fd(0)),
    ("flock", libc::SYS_flock, Fd(0)),
    ("fsconfig", libc::SYS_fsconfig, Nothing),
    ("fsmount", libc::SYS_fsmount, Nothing),
    ("fsopen", libc::SYS_fsopen, Nothing),
    ("ftruncate", libc::SYS_ftruncate, Fd(0)),
    ("inotify_init1", libc::SYS_inotify_init1, Nothing),
    // Newer architectures have the more general call alone.
    #[cfg(target_arch = "x86_64")]
    ("mkdir", libc::SYS_mkdir, Path(0)),
    ("mkdirat", libc::SYS_mkdirat, Path(1)),
    ("mmap", libc::SYS_mmap, Fd(4)),
    ("mount", libc::SYS_mount, Path(1)),
    ("move_mount", libc::SYS_move_mount, Path(3)),
    ("open_tree", libc::SYS_open_tree, Path(1)),
    ("openat", libc::SYS_openat, Path(1)),
    ("pidfd_open", libc::SYS_pidfd_open, Nothing),
    ("pipe2", libc::SYS_pipe2, Nothing),
    ("prctl", libc::SYS_prctl, Nothing),
    ("sendmsg", libc::SYS_sendmsg, Fd(0)),
    ("sendto", libc::SYS_sendto, Fd(0)),
    ("setns", libc::SYS_setns, Fd(0)),
    ("setsockopt", libc::SYS_setsockopt, Fd(0)),
    ("signalfd4", libc::SYS_signalfd4, Nothing),
    ("socket", libc::SYS_socket, Nothing),
    ("timerfd_create", libc::SYS_timerfd_create, Nothing),
    ("unshare", libc::SYS_unshare, Nothing),
    #[cfg(target_arch = "x86_64")]
    ("vfork", libc::SYS_vfork, Nothing),
    ("write", libc::SYS_write, Fd(0)),
    ("writev", libc::SYS_writev, Fd(0)),
];

fn main() -> Result<ExitCode> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [call, word, number, errno, log, program @ ..] = &arguments[..] else {
        bail!("usage: fail CALL WORD NUMBER ERRNO LOG PROGRAM [ARGUMENTS]...")
    };
    let known = CALLS.iter().find(|(name, ..)| name == call);
    let &(_, call, about) = known.with_context(|| format!("the call {call} is not known"))?;
    let first = number.trim_end_matches('+');
    let (and_later, number, errno) = (first != number, first.parse()?, errno.parse()?);
    let log = File::create(log).with_context(|| format!("cannot write to {log}"))?;
    let (word, failing) = (word.clone(), HashSet::new());
    Failing { call, about, word, number, and_later, errno, log, count: 0, failing }.follow(start(program)?)
}

/// Starts the program and follows it, with all its threads and children.
fn start(program: &[String]) -> Result<Pid> {
    let words = program.iter().map(|word| CString::new(word.as_str())).collect::<Result<Vec<_>, _>>()?;
    let name = words.first().context("no program")?;
    // SAFETY: there is one thread only.
    let ForkResult::Parent { child } = (unsafe { fork() })? else {
        ptrace::traceme()?;
        raise(Signal::SIGSTOP)?;
        let Err(error) = execvp(name, &words);
        bail!("cannot execute {name:?}: {error}");
    };
    waitpid(child, None)?;
    let all = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK;
    ptrace::setoptions(child, all | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACESYSGOOD)?;
    ptrace::syscall(child, None)?;
    Ok(child)
}

struct Failing {
    call: i64,
    about: About,
    word: String,
    number: u32,
    and_later: bool,
    errno: i64,
    log: File,
    count: u32,
    /// Who is in a call that fails.
    failing: HashSet<Pid>,
}

impl Failing {
    /// Lets all of them run until the first one ends, with its exit status.
    fn follow(mut self, first: Pid) -> Result<ExitCode> {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL))? {
                WaitStatus::PtraceSyscall(pid) => {
                    self.at_call(pid)?;
                    go_on(pid, None);
                }
                // It is another program from here on, and left alone.
                WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) if pid != first => leave(pid),
                WaitStatus::PtraceEvent(pid, ..) => go_on(pid, None),
                // A new thread or child begins with a stop, which is for us alone.
                WaitStatus::Stopped(pid, Signal::SIGSTOP) => go_on(pid, None),
                WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal)),
                WaitStatus::Exited(pid, status) if pid == first => return Ok(u8::try_from(status)?.into()),
                WaitStatus::Signaled(pid, signal, _) if pid == first => bail!("it was ended by {signal}"),
                _ => {}
            }
        }
    }

    /// At the beginning or the end of a call.
    fn at_call(&mut self, pid: Pid) -> Result<()> {
        // It fails only where the thread has been killed meanwhile.
        let Ok(info) = ptrace::syscall_info(pid) else { return Ok(()) };
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: at the beginning of a call this is what the kernel has filled in.
            let (call, arguments) = unsafe { (info.u.entry.nr, info.u.entry.args) };
            if call.cast_signed() != self.call || is_unlock(self.call, &arguments) {
                return Ok(());
            }
            let file = subject(self.about, pid, &arguments).unwrap_or_default();
            if !file.contains(&self.word) {
                return Ok(());
            }
            self.count += 1;
            writeln!(self.log, "{file}")?;
            if self.count == self.number || (self.and_later && self.count > self.number) {
                set_call(pid, -1)?;
                self.failing.insert(pid);
            }
        } else if self.failing.remove(&pid) {
            set_result(pid, -self.errno)?;
        }
        Ok(())
    }
}

fn go_on(pid: Pid, signal: Option<Signal>) {
    // It fails only where the thread has been killed meanwhile.
    let _ = ptrace::syscall(pid, signal);
}

fn leave(pid: Pid) {
    // As above.
    let _ = ptrace::detach(pid, None);
}

/// Whether it gives a lock back, which does not fail.
fn is_unlock(call: i64, arguments: &[u64; 6]) -> bool {
    call == libc::SYS_flock && arguments[1] == u64::from(libc::LOCK_UN.cast_unsigned())
}

/// The file that a call is about.
fn subject(about: About, pid: Pid, arguments: &[u64; 6]) -> Option<String> {
    match about {
        Nothing => None,
        Fd(index) => {
            let file = fs::read_link(format!("/proc/{pid}/fd/{}", arguments[index])).ok()?;
            Some(format!("{} {}", arguments[index], file.display()))
        }
        Path(index) => {
            let mut path = [0; 256];
            let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
            let len = memory.read_at(&mut path, arguments[index]).ok()?;
            path[..len].split(|byte| *byte == 0).next().map(|path| String::from_utf8_lossy(path).into_owned())
        }
    }
}

/// Puts another call in the place of the one that a thread is about to make; -1 is none.
#[cfg(target_arch = "x86_64")]
fn set_call(pid: Pid, call: i64) -> Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    registers.orig_rax = call.cast_unsigned();
    Ok(ptrace::setregs(pid, registers)?)
}

/// Puts another result in the place of that of the call that a thread has made.
#[cfg(target_arch = "x86_64")]
fn set_result(pid: Pid, result: i64) -> Result<()> {
    let mut registers = ptrace::getregs(pid)?;
    registers.rax = result.cast_unsigned();
    Ok(ptrace::setregs(pid, registers)?)
}

#[cfg(not(target_arch = "x86_64"))]
fn set_call(_: Pid, _: i64) -> Result<()> {
    bail!("calls can be made to fail on x86-64 only")
}

#[cfg(not(target_arch = "x86_64"))]
fn set_result(_: Pid, _: i64) -> Result<()> {
    bail!("calls can be made to fail on x86-64 only")
}
