//! libpcap in a process of its own: it cannot be interrupted, and takes minutes to optimise what lists a thousand hosts. It
//! first compiles an expression as it is, then once more with its optimiser, and is given up after a while.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    panic::catch_unwind,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl::set_pdeathsig,
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Gid, Pid, Uid, fork, getpid, getppid, pipe2, setgroups, setresgid, setresuid},
};

use super::{classic::Instruction, libpcap::Library};
use crate::{
    capabilities, descriptors,
    error::{Context, Result},
};

/// So much memory libpcap may use, in bytes.
const MEMORY: u64 = 2 << 30;

/// The user and group that have no rights to anything.
const NOBODY: u32 = 65534;

/// What the first byte of an answer says of the rest of it; its length stands between, in four bytes.
const PROGRAM: u8 = b'p';
const MESSAGE: u8 = b'm';

/// What follows on what libpcap says of an expression.
const MANUAL: &[u8] = b"; see 'man pcap-filter'";

/// The longest answer in bytes: more than the kernel takes of a program.
const LONGEST: usize = 8 << 20;

/// libpcap at work in a process of its own. Dropped, it is ended.
pub(super) struct Libpcap {
    process: Pid,
    answers: File,
}

impl Libpcap {
    /// Starts it on an expression. While the caller has one thread.
    ///
    /// # Errors
    /// Where there can be no more processes.
    pub(super) fn start(expression: &CStr, linktype: u16) -> Result<Self> {
        let (from, to) = pipe2(OFlag::O_CLOEXEC).context("make", "a pipe")?;
        let parent = getpid();
        // SAFETY: there is no other thread that could hold a lock in the child.
        match unsafe { fork() }.context("start", "a process for the filter")? {
            ForkResult::Parent { child } => Ok(Self { process: child, answers: from.into() }),
            ForkResult::Child => {
                drop(from);
                let result = catch_unwind(|| work(to, parent, expression, linktype).is_ok());
                // SAFETY: it ends the process, and runs nothing of the tracer's on the way.
                unsafe { libc::_exit(i32::from(!result.unwrap_or(false))) }
            }
        }
    }

    /// The next answer, a program or a message; none where it is not there in time: of the expression as it is, and then
    /// optimised.
    ///
    /// # Errors
    /// Where it ended before.
    pub(super) fn answer(&self, limit: Duration) -> io::Result<Option<Result<Vec<Instruction>, String>>> {
        let deadline = Instant::now() + limit;
        let mut head = [0; 5];
        if !self.read(&mut head, deadline)? {
            return Ok(None);
        }
        let [kind, length @ ..] = head;
        let length = u32::from_ne_bytes(length) as usize;
        if length > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut answer = vec![0; length];
        if !self.read(&mut answer, deadline)? {
            return Ok(None);
        }
        Ok(Some(match kind {
            PROGRAM => Ok(instructions(&answer)),
            _ => Err(String::from_utf8_lossy(&answer).into_owned()),
        }))
    }

    /// Fills the buffer; false where it is not full in time.
    fn read(&self, mut buffer: &mut [u8], deadline: Instant) -> io::Result<bool> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => return Ok(false),
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            match (&self.answers).read(buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => buffer = &mut buffer[length..],
            }
        }
        Ok(true)
    }
}

impl Drop for Libpcap {
    fn drop(&mut self) {
        // Its work is done, or nobody waits for it.
        let _ = kill(self.process, Signal::SIGKILL);
        while waitpid(self.process, None) == Err(Errno::EINTR) {}
    }
}

fn work(to: OwnedFd, parent: Pid, expression: &CStr, linktype: u16) -> io::Result<()> {
    descriptors::close_all_but(&[libc::STDERR_FILENO, to.as_raw_fd()]);
    become_nobody();
    capabilities::keep_only(&[]).map_err(io::Error::other)?;
    // Last, since a change of user clears it.
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Ok(());
    }
    // Where the limit is lower, it stays.
    let (_, most) = getrlimit(Resource::RLIMIT_AS)?;
    setrlimit(Resource::RLIMIT_AS, MEMORY.min(most), MEMORY.min(most))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let mut to = File::from(to);
    let library = Library::load();
    for optimise in [false, true] {
        let compiled = library.as_ref().map(|library| library.compile(expression, linktype, optimise));
        let (kind, answer) = match compiled {
            Ok(Ok(program)) => (PROGRAM, program.iter().flat_map(bytes).collect()),
            Ok(Err(message)) => (MESSAGE, [&message[..], MANUAL].concat()),
            Err(message) => (MESSAGE, message.clone()),
        };
        let length = u32::try_from(answer.len()).unwrap_or(u32::MAX);
        to.write_all(&[&[kind], &length.to_ne_bytes()[..], &answer].concat())?;
    }
    Ok(())
}

/// To read an expression and look names up, it is enough to be anybody. A container may have nobody of that number, or not let
/// us be another user.
fn become_nobody() {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    // Each that can be had.
    let _ = (setgroups(&[]), setresgid(gid, gid, gid), setresuid(uid, uid, uid));
}

fn bytes(instruction: &Instruction) -> [u8; 8] {
    let Instruction { code, jt, jf, k } = instruction;
    let (code, k) = (code.to_ne_bytes(), k.to_ne_bytes());
    [code[0], code[1], *jt, *jf, k[0], k[1], k[2], k[3]]
}

fn instructions(bytes: &[u8]) -> Vec<Instruction> {
    let read = |[c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; 8]| Instruction {
        code: u16::from_ne_bytes([*c0, *c1]),
        jt: *jt,
        jf: *jf,
        k: u32::from_ne_bytes([*k0, *k1, *k2, *k3]),
    };
    bytes.as_chunks().0.iter().map(read).collect()
}
