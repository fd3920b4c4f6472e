//! The kernel, running a translated filter on frames of the test's own.

use std::{
    ffi::{CStr, c_long},
    fs::File,
    io,
    mem::size_of_val,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

use anyhow::{Result, anyhow, bail};
use nix::{
    errno::Errno,
    sys::resource::{RLIM_INFINITY, Resource, setrlimit},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
};
use nsntrace::filter::{
    Hook, classic,
    ebpf::{Instruction, R0, Width, operation},
    translate,
};

/// As what a program is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// For a TC hook; reads packets where they lie.
    Tc {
        /// Whether packets leave there.
        outgoing: bool,
    },
    /// For a cgroup, whose packets have no link-layer header.
    CgroupSkb,
    /// For a socket: what it may do is little, and it takes frames of any size. Reads packets through copies.
    Socket,
}

/// A filter in the kernel.
#[derive(Debug)]
pub struct Loaded {
    fd: OwnedFd,
    /// Sender and receiver of a socket's filter.
    sockets: Option<(OwnedFd, OwnedFd)>,
    /// Instructions of it.
    pub instructions: usize,
    /// How many the kernel has followed to check it.
    pub followed: u64,
    /// How long that took it, in microseconds.
    pub time: u64,
}

const PROG_LOAD: c_long = 5;
const PROG_ATTACH: c_long = 8;
const PROG_TEST_RUN: c_long = 10;
const PROG_QUERY: c_long = 16;

/// Programs beside this one are welcome.
const ALLOW_MULTI: u32 = 2;

/// Lengths of the frames that TEST_RUN takes on every kernel, whatever is in them.
pub const TEST_RUN_TAKES: std::ops::RangeInclusive<usize> = 54..=3500;

/// The kernel's attributes for PROG_LOAD.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// The kernel's attributes for PROG_TEST_RUN.
#[repr(C)]
#[derive(Default)]
struct RunAttributes {
    program: u32,
    result: u32,
    data_length: u32,
    out_length: u32,
    data: u64,
    out: u64,
    repeat: u32,
    nanoseconds: u32,
    context_length: u32,
    context_out_length: u32,
    context: u64,
    context_out: u64,
}

/// The kernel's attributes for PROG_ATTACH.
#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// The kernel's attributes for PROG_QUERY.
#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
}

/// The programs that are attached to a cgroup itself, by their numbers: for what comes in, and for what goes out.
pub fn attached(cgroup: &Path) -> Result<[Vec<u32>; 2]> {
    let cgroup = File::open(cgroup)?;
    let query = |kind| -> Result<Vec<u32>> {
        let mut programs = vec![0; 64];
        let mut attributes = QueryAttributes {
            target: cgroup.as_raw_fd().cast_unsigned(),
            kind,
            programs: programs.as_mut_ptr() as u64,
            count: 64,
            ..QueryAttributes::default()
        };
        bpf(PROG_QUERY, &mut attributes)?;
        programs.truncate(attributes.count as usize);
        Ok(programs)
    };
    Ok([query(0)?, query(1)?])
}

impl Program {
    fn hook(self) -> Hook {
        match self {
            Self::Tc { outgoing } => Hook { outgoing, tags: true, direct: true },
            Self::CgroupSkb => Hook { outgoing: false, tags: false, direct: true },
            Self::Socket => Hook { outgoing: false, tags: true, direct: false },
        }
    }

    fn kind(self) -> u32 {
        match self {
            Self::Socket => 1,
            Self::Tc { .. } => 3,
            Self::CgroupSkb => 8,
        }
    }

    /// Translates and loads a classic program. An error is the verifier's.
    pub fn load(self, program: &[classic::Instruction]) -> Result<Loaded> {
        let mut code = translate(program, self.hook())?;
        code.push(Instruction::exit());
        let bytes: Vec<u8> = code.iter().flat_map(|instruction| instruction.to_bytes()).collect();
        let (fd, log) =
            load(self.kind(), &bytes, STATISTICS).or_else(|_| load(self.kind(), &bytes, STEPS))?;
        let sockets = if self == Self::Socket { Some(sockets(&fd)?) } else { None };
        let [followed, time] = ["processed ", "verification time "].map(|word| {
            log.split(word).nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
        });
        Ok(Loaded { fd, sockets, instructions: code.len(), followed, time })
    }
}

/// Attaches to a cgroup a program that lets all sockets be made, and is to be alone there. It stays there as long as the cgroup.
pub fn alone_at_new_sockets(cgroup: &Path) -> Result<()> {
    const CGROUP_SOCK: u32 = 9;
    const INET_SOCK_CREATE: u32 = 2;
    let yes = Instruction::calculate(Width::Bits64, operation::MOV, R0, 1);
    let bytes = [yes, Instruction::exit()].map(Instruction::to_bytes).concat();
    let (program, _) = load(CGROUP_SOCK, &bytes, STATISTICS)?;
    attach(&program, cgroup, INET_SOCK_CREATE, 0)
}

fn attach(program: &OwnedFd, cgroup: &Path, kind: u32, flags: u32) -> Result<()> {
    let cgroup = File::open(cgroup)?;
    let mut attributes = AttachAttributes {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind,
        flags,
    };
    bpf(PROG_ATTACH, &mut attributes)?;
    Ok(())
}

const STEPS: u32 = 1;
const STATISTICS: u32 = 4;

fn load(kind: u32, bytes: &[u8], log_level: u32) -> Result<(OwnedFd, String)> {
    const LICENSE: &CStr = c"Dual MIT/GPL";
    // Before 5.11 programs count as locked memory, for a while after their end too. Later it may be denied, and is not needed.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let mut log = vec![0_u8; if log_level == STEPS { 16 << 20 } else { 4096 }];
    let mut attributes = LoadAttributes {
        kind,
        count: u32::try_from(bytes.len() / size_of::<Instruction>())?,
        instructions: bytes.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level,
        log_size: u32::try_from(log.len())?,
        log: log.as_mut_ptr() as u64,
        ..LoadAttributes::default()
    };
    let result = bpf(PROG_LOAD, &mut attributes);
    let log = String::from_utf8_lossy(&log);
    let log = log.trim_end_matches('\0');
    match result {
        // SAFETY: the kernel has made it for us.
        Ok(fd) => Ok((unsafe { OwnedFd::from_raw_fd(fd) }, log.to_owned())),
        Err(error) => {
            let lines: Vec<_> = log.lines().collect();
            Err(anyhow!(
                "{error}; the verifier says:\n{}",
                lines[lines.len().saturating_sub(30)..].join("\n")
            ))
        }
    }
}

fn bpf<T>(command: c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads and writes the attributes, whose size it is told, and what they point to is there.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of_val(attributes))
    };
    RawFd::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)
}

/// Datagrams from the first to the second pass the filter.
fn sockets(filter: &OwnedFd) -> Result<(OwnedFd, OwnedFd)> {
    let (sender, receiver) = socketpair(
        AddressFamily::Unix,
        SockType::Datagram,
        None,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
    )?;
    set_option(&sender, libc::SO_SNDBUFFORCE, 1 << 20)?;
    set_option(&receiver, libc::SO_ATTACH_BPF, filter.as_raw_fd())?;
    Ok((sender, receiver))
}

fn set_option(socket: &OwnedFd, name: i32, value: i32) -> Result<()> {
    // SAFETY: the value is there during the call, with the length that is told.
    let result = unsafe {
        let (value, length) = ((&raw const value).cast(), 4);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value, length)
    };
    Errno::result(result)?;
    Ok(())
}

impl Loaded {
    /// Whether it picks the frame, which the kernel gets as it is; that of a cgroup gets what is behind the Ethernet
    /// header.
    pub fn picks(&self, frame: &[u8]) -> Result<bool> {
        match &self.sockets {
            Some((sender, receiver)) => pass(sender, receiver, frame),
            None => self.test_run(frame, 1).map(|(result, _)| result != 0),
        }
    }

    /// Attaches it to a cgroup, for what comes in and for what goes out, beside others or where it is to be alone. It
    /// stays there as long as the cgroup.
    pub fn attach(&self, cgroup: &Path, beside_others: bool) -> Result<()> {
        let flags = if beside_others { ALLOW_MULTI } else { 0 };
        [0, 1].into_iter().try_for_each(|kind| attach(&self.fd, cgroup, kind, flags))
    }

    /// Its result for a frame, and how many nanoseconds it takes on the average of so many runs.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<(u32, u32)> {
        let mut attributes = RunAttributes {
            program: self.fd.as_raw_fd().cast_unsigned(),
            data_length: u32::try_from(frame.len())?,
            data: frame.as_ptr() as u64,
            repeat,
            ..RunAttributes::default()
        };
        loop {
            match bpf(PROG_TEST_RUN, &mut attributes) {
                Ok(_) => return Ok((attributes.result, attributes.nanoseconds)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => bail!("the kernel does not run it on {} bytes: {error}", frame.len()),
            }
        }
    }
}

fn pass(sender: &OwnedFd, receiver: &OwnedFd, frame: &[u8]) -> Result<bool> {
    send(sender.as_raw_fd(), frame, MsgFlags::empty())?;
    match recv(receiver.as_raw_fd(), &mut [0; 1], MsgFlags::empty()) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
