//! From the text of an expression to a classic program, by libpcap.
//!
//! libpcap cannot be interrupted, and takes minutes to optimise what lists a thousand hosts. So it works in a process of
//! its own, which is given up after a while.

use std::{
    ffi::{CStr, CString},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    panic::catch_unwind,
    time::{Duration, Instant},
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl::set_pdeathsig,
        resource::{Resource, setrlimit},
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, pipe2},
};

use super::{classic::Instruction, libpcap};
use crate::{
    error::{Context, Error, Result},
    words::{plain, say},
};

/// So long the optimiser may take; without it a program does the same, in more steps.
const OPTIMISER: Duration = Duration::from_secs(10);

/// So long the rest may take: names are looked up.
const COMPILER: Duration = Duration::from_secs(60);

/// So much memory libpcap may use, in bytes.
const MEMORY: u64 = 2 << 30;

/// So much of an expression is shown with an error, in characters.
const SHOWN: usize = 200;

/// What the first byte of an answer says of the rest of it.
const PROGRAM: u8 = b'p';
const MESSAGE: u8 = b'm';

/// Compiles an expression for packets of a link type, see [`linktype`](nsntrace_ebpf::linktype). Names of hosts, networks
/// and services are looked up where the caller is. While the process has one thread.
///
/// # Errors
/// What libpcap says of the expression.
pub fn compile(expression: &str, linktype: u16) -> Result<Vec<Instruction>> {
    let text = CString::new(expression).context("read", "the filter expression")?;
    let answer = match ask(&text, linktype, true, OPTIMISER)? {
        Some(answer) => answer,
        None => {
            say!("nsntrace: -f: the expression takes long to optimise: it is used as it is");
            ask(&text, linktype, false, COMPILER)?.ok_or_else(|| {
                refused(
                    expression,
                    "libpcap has not compiled it after a minute; shorten it, or give addresses for names",
                )
            })?
        }
    };
    match answer.split_first() {
        Some((&PROGRAM, program)) => Ok(instructions(program)),
        Some((&MESSAGE, message)) => Err(refused(expression, &String::from_utf8_lossy(message))),
        _ => Err(refused(expression, "libpcap failed on it; shorten it")),
    }
}

fn refused(expression: &str, reason: &str) -> Error {
    let mut start: String = plain(expression).chars().take(SHOWN).collect();
    if start.len() < expression.len() {
        start.push('…');
    }
    Error::told(format!("-f '{start}': {}; see 'man pcap-filter'", plain(reason)))
}

/// What libpcap makes of it, in a process of its own: nothing if that died, none if it is not done in time.
fn ask(expression: &CStr, linktype: u16, optimise: bool, limit: Duration) -> Result<Option<Vec<u8>>> {
    let (answer, answers) = pipe2(OFlag::O_CLOEXEC).context("make", "a pipe")?;
    // SAFETY: there is no other thread that could hold a lock in the child.
    match unsafe { fork() }.context("start", "a process for the filter")? {
        ForkResult::Parent { child } => {
            drop(answers);
            let read = read_all(answer, Instant::now() + limit);
            if !matches!(read, Ok(Some(_))) {
                let _ = kill(child, Signal::SIGKILL);
            }
            end_of(child)?;
            read.context("read", "the compiled filter")
        }
        ForkResult::Child => {
            let result = catch_unwind(|| answer_with(answers, expression, linktype, optimise).is_ok());
            // SAFETY: it ends the process, and runs nothing of the tracer's on the way.
            unsafe { libc::_exit(i32::from(!result.unwrap_or(false))) }
        }
    }
}

fn end_of(child: Pid) -> Result<WaitStatus> {
    loop {
        match waitpid(child, None) {
            Err(nix::Error::EINTR) => {}
            result => return result.context("wait for", "the process for the filter"),
        }
    }
}

/// All until the end; none after the deadline.
fn read_all(from: OwnedFd, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let mut from = std::fs::File::from(from);
    let mut bytes = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Ok(None),
            Err(nix::Error::EINTR) => continue,
            result => result?,
        };
        let mut chunk = [0; 1 << 16];
        match from.read(&mut chunk)? {
            0 => return Ok(Some(bytes)),
            length => bytes.extend_from_slice(&chunk[..length]),
        }
    }
}

fn answer_with(to: OwnedFd, expression: &CStr, linktype: u16, optimise: bool) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let (kind, answer) = match libpcap::compile(expression, linktype, optimise) {
        Ok(program) => (PROGRAM, program.iter().flat_map(bytes).collect()),
        Err(message) => (MESSAGE, message),
    };
    let mut to = std::fs::File::from(to);
    to.write_all(&[kind])?;
    to.write_all(&answer)
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
