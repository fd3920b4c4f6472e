//! A job on a terminal of its own, typed at by the test.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::pty::{Winsize, openpty};

use crate::{Job, Running, SOON, until};

/// A pseudo-terminal, the test's side of it, and what runs on the other.
#[derive(Debug)]
pub struct Terminal {
    /// What was started on it.
    pub process: Running,
    keyboard: File,
    screen: Arc<Mutex<String>>,
    seen: usize,
}

impl Job {
    /// Starts it on a new terminal, which controls it: stdin, stdout and stderr.
    pub fn spawn_on_terminal(mut self) -> Result<Terminal> {
        let pty = openpty(None, None).context("cannot open a terminal")?;
        let command = self.command();
        command.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?).stderr(pty.slave);
        let take = || {
            // SAFETY: stdin is the terminal, and the job leads a session without one.
            let taken = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) };
            if taken < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: the closure makes one system call.
        unsafe { command.pre_exec(take) };
        // Closes our copies of the terminal's other side with the command: its end is the job's end.
        let process = self.spawn()?;
        let keyboard = File::from(pty.master);
        let screen = Arc::default();
        watch(keyboard.try_clone()?, Arc::clone(&screen));
        Ok(Terminal { process, keyboard, screen, seen: 0 })
    }
}

/// Collects what appears on the screen until the terminal is closed.
fn watch(mut terminal: File, screen: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = terminal.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..len]);
            screen.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
    });
}

impl Terminal {
    /// Ctrl-C.
    pub const CTRL_C: &str = "\x03";
    /// Ctrl-Z.
    pub const CTRL_Z: &str = "\x1a";

    /// Types these keys.
    pub fn types(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).context("cannot type")
    }

    /// Gives it another size, as a window that is drawn larger does.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the size lives as long as the call.
        let result = unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        if result < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
    }

    /// Waits until `text` appears after what was waited for last, and returns all from there up to its end.
    pub fn shows(&mut self, text: &str) -> Result<String> {
        let found = until(&format!("{text:?} on the terminal"), SOON, || {
            let screen = self.screen();
            let new = &screen[self.seen..];
            Ok(new.find(text).map(|at| new[..at + text.len()].to_owned()))
        });
        match found {
            Ok(shown) => {
                self.seen += shown.len();
                Ok(shown)
            }
            Err(error) => bail!("{error:#}; it shows:\n{}", self.screen()),
        }
    }

    /// All that it has shown.
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
