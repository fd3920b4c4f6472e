//! A trace for a user who is not root: sudo or pkexec start it, if they let this user, and this process stays to be told
//! when it is to end. A signal of the user's would not reach what runs as root.

use std::{
    env,
    ffi::OsString,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    fcntl::OFlag,
    sys::signal::{SigSet, Signal},
    unistd::{Pid, pipe2},
};

use crate::{
    error::{Context, Error, Result},
    signals::{keep_children, send},
    tracee,
};

/// What asks for an end.
const ENDINGS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Makes the trace of a command line, whose first word is nobody's, on stdout. Returns 0, or 1 where it failed and said why.
///
/// # Errors
/// Where nobody starts it as root.
pub fn trace(words: &[OsString]) -> Result<u8> {
    let own = env::current_exe().context("find", "nsntrace's own file")?;
    keep_children()?;
    let mut starter = starter(&own)?;
    starter.args(words.get(1..).unwrap_or_default());
    let mut signals: SigSet = ENDINGS.into_iter().collect();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("block", "signals")?;
    // While it is open, the trace goes on: see `--as-extcap`.
    let (ends, goes_on) = pipe2(OFlag::O_CLOEXEC).context("make", "a pipe")?;
    // Who asks for a password is to hear of a stop.
    // SAFETY: it makes one system call.
    unsafe { starter.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?)) };
    let child = starter.stdin(ends).spawn().context("start", starter.get_program().display())?;
    let is_success = follow(child, goes_on, &signals)?;
    Ok(u8::from(!is_success))
}

/// Until its end; who is told to end passes that on.
fn follow(mut child: Child, goes_on: OwnedFd, signals: &SigSet) -> Result<bool> {
    let mut goes_on = Some(goes_on);
    loop {
        if signals.wait().context("wait for", "signals")? != Signal::SIGCHLD {
            drop(goes_on.take());
            // It reaches who still asks for a password, and nobody after that.
            send(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        }
        if let Some(status) = child.try_wait().context("wait for", "the trace")? {
            return Ok(status.success());
        }
    }
}

/// pkexec's option for whom it starts to be in the same folder, and not in root's home: version 121 and later have it.
const KEEP_FOLDER: &str = "--keep-cwd";

fn keeps_folder(pkexec: &Path) -> bool {
    let help = Command::new(pkexec).arg("--help").output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains(KEEP_FOLDER))
}

/// What starts this file as root: sudo where it does so without a password, else pkexec, which has its own ways to ask.
fn starter(own: &Path) -> Result<Command> {
    let find = |name: &str| tracee::find(name.as_ref(), None).ok();
    if let Some(sudo) = find("sudo").filter(|sudo| lets_us(sudo, own)) {
        return Ok(through(&sudo, &["-n", "--"], own));
    }
    match find("pkexec") {
        Some(pkexec) if keeps_folder(&pkexec) => Ok(through(&pkexec, &[KEEP_FOLDER], own)),
        Some(pkexec) => Ok(through(&pkexec, &[], own)),
        None => Err(Error::told(format!(
            "a trace needs root: let sudo run {} without a password, install pkexec, or run Wireshark as root",
            own.display()
        ))),
    }
}

/// Asked by a call that does nothing.
fn lets_us(sudo: &Path, own: &Path) -> bool {
    let mut ask = through(sudo, &["-n", "--"], own);
    ask.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ask.status().is_ok_and(|status| status.success())
}

fn through(starter: &Path, options: &[&str], own: &Path) -> Command {
    let mut command = Command::new(starter);
    command.args(options).arg(own);
    command
}
