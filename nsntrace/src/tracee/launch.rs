//! From a program's name and words to a process that runs it, in its cgroup from the first instruction on.
//!
//! The C library's own ways have no word for the cgroup, and a process that moves itself waits until each processor of the
//! machine has passed a point of rest: many milliseconds.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr::null,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::wait::waitpid,
    unistd::{Pid, pipe2, write},
};

use crate::host::cgroup_leaf::Door;

/// What runs a file that says of no other that it should, as of old.
const SHELL: &str = "/bin/sh";

/// Of linux/sched.h; the C library's bindings cut it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a process becomes.
pub struct Image {
    path: CString,
    words: Words,
    /// The same by the shell.
    by_shell: Words,
    environment: Words,
}

impl Image {
    /// The program at `path`, with its name as the first of the words.
    ///
    /// # Errors
    /// Where one of them has a zero in it, with which no program can be started.
    pub fn new(
        path: &Path,
        words: &[&OsStr],
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> io::Result<Self> {
        let rest = words.get(1..).unwrap_or_default();
        let by_shell: Vec<_> =
            [OsStr::new(SHELL), path.as_os_str()].into_iter().chain(rest.iter().copied()).collect();
        let pairs = environment.map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        });
        let pairs: Vec<_> = pairs.collect();
        Ok(Self {
            path: CString::new(path.as_os_str().as_bytes())?,
            words: Words::new(words.iter().copied())?,
            by_shell: Words::new(by_shell.into_iter())?,
            environment: Words::new(pairs.iter().map(OsString::as_os_str))?,
        })
    }

    /// Becomes it, or says why not.
    fn execute(&self) -> Errno {
        let environment = self.environment.pointers.as_ptr();
        // SAFETY: all end with a null, and what they point to is kept beside them.
        unsafe { libc::execve(self.path.as_ptr(), self.words.pointers.as_ptr(), environment) };
        let error = Errno::last();
        if error == Errno::ENOEXEC {
            // SAFETY: as above.
            unsafe { libc::execve(self.by_shell.pointers[0], self.by_shell.pointers.as_ptr(), environment) };
        }
        error
    }
}

/// Words as the kernel takes them.
struct Words {
    _texts: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Words {
    fn new<'a>(words: impl Iterator<Item = &'a OsStr>) -> io::Result<Self> {
        let texts = words.map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([null()]).collect();
        Ok(Self { _texts: texts, pointers })
    }
}

/// Starts a process in the cgroup behind the door; it does what is to be done before the program, which must be system calls
/// only, on memory that is there already.
///
/// # Errors
/// What the kernel says of the process, of a step before the program, or of the program.
pub fn launch(image: &Image, door: &Door, before: impl FnOnce() -> io::Result<()>) -> io::Result<Pid> {
    let (failure, tell) = pipe2(OFlag::O_CLOEXEC)?;
    let child = match clone_into(door) {
        // Where this call is kept from us, as by a container's filter, the other way may be open.
        Err(Errno::ENOSYS | Errno::EPERM) => fork().map(|child| (child, false)),
        child => child.map(|child| (child, true)),
    };
    let (pid, is_inside) = child?;
    if pid == 0 {
        let moved = if is_inside { Ok(()) } else { door.pass() };
        let error = match moved.and_then(|()| before()) {
            Ok(()) => image.execute() as i32,
            Err(error) => error.raw_os_error().unwrap_or(libc::EPIPE),
        };
        let _ = write(&tell, &error.to_ne_bytes());
        // SAFETY: it ends the process, and runs nothing of the tracer's on the way.
        unsafe { libc::_exit(127) }
    }
    drop(tell);
    let pid = Pid::from_raw(pid);
    let mut error = [0; 4];
    match File::from(failure).read_exact(&mut error) {
        // The program has begun, and the end of the pipe is closed.
        Err(_) => Ok(pid),
        Ok(()) => {
            let _ = waitpid(pid, None);
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(error)))
        }
    }
}

/// A copy of this process in the cgroup: 0 in the copy, its pid here.
fn clone_into(door: &Door) -> nix::Result<libc::pid_t> {
    // SAFETY: plain numbers, for which zero is nothing.
    let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
    wanted.flags = CLONE_INTO_CGROUP;
    wanted.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    wanted.cgroup = door.as_fd().as_raw_fd().cast_unsigned().into();
    // SAFETY: as fork. The C library does not know of it: the copy makes system calls only.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const wanted, size_of::<libc::clone_args>()) };
    // A pid is below 2^22.
    Errno::result(pid).map(|pid| libc::pid_t::try_from(pid).unwrap_or(-1))
}

fn fork() -> nix::Result<libc::pid_t> {
    // SAFETY: the copy makes system calls only.
    Errno::result(unsafe { libc::fork() })
}
