//! One boot: a command runs in the guest, its output and its status come back.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};

use super::initramfs;
use super::kernel::Kernel;
use super::share::Share;
use crate::shell::last_lines;

const START: &str = include_str!("start.sh");

/// A machine to be booted.
pub struct Guest<'a> {
    /// What it runs.
    pub kernel: &'a Kernel,
    /// Its memory; what the command writes outside of /exchange is kept in it too.
    pub memory_mib: u32,
    /// After so long it is ended.
    pub time_limit: Duration,
    /// What is put before each line of the command's output, which is then shown while it runs.
    pub shown_after: Option<&'a str>,
}

/// What came out of it.
pub struct GuestResult {
    /// The exit status of the command, as the shell says it.
    pub status: i32,
    /// What the command wrote to stdout and stderr.
    pub output: String,
    /// What the kernel and the start-up scripts said.
    pub console: String,
    /// From the start of qemu to its end.
    pub elapsed: Duration,
}

impl Guest<'_> {
    /// Boots and runs `command` (for `sh`) as root.
    ///
    /// The folder `exchange` is writable at `/exchange` in the guest; all else is this machine's root, whose changes
    /// are lost. A guest that ends without a status is an error with its last words.
    pub fn run(&self, command: &str, exchange: &Path) -> Result<GuestResult> {
        let folder = self.kernel.fresh_dir("run")?;
        let control = self.kernel.fresh_dir("control")?;
        fs::write(control.join("start.sh"), START).context("cannot write start.sh")?;
        fs::write(control.join("command.sh"), command).context("cannot write command.sh")?;
        let initramfs = initramfs::build(self.kernel, &folder)?;
        let share = Share::start(self.kernel, exchange, &control, &folder)?;

        let started = Instant::now();
        let console = folder.join("console.log");
        let mut qemu = self.boot(&share.socket, &initramfs, &console)?;
        let output = self.follow(&mut qemu)?;
        let end = qemu.wait().context("cannot wait for qemu")?;
        let elapsed = started.elapsed();

        let console = text(&console);
        match status(&control) {
            Some(status) => Ok(GuestResult { status, output, console, elapsed }),
            None => Err(self.no_status(&folder, &format!("{console}\n{output}"), end, elapsed)),
        }
    }

    fn no_status(&self, folder: &Path, said: &str, end: ExitStatus, elapsed: Duration) -> Error {
        let limit = if elapsed >= self.time_limit { ": the time is up" } else { "" };
        let (seconds, folder, last_words) = (elapsed.as_secs(), folder.display(), last_lines(said, 60));
        anyhow!(
            "the guest ended without a status after {seconds} s{limit} ({end}); logs are in {folder}\n{last_words}"
        )
    }

    fn boot(&self, socket: &Path, initramfs: &Path, console: &Path) -> Result<Child> {
        let memory = format!("memory-backend-memfd,id=memory,size={}M,share=on", self.memory_mib);
        // timeout ends a guest that hangs even if we are gone.
        Command::new("timeout")
            .args(["--foreground", "--signal=KILL", &self.time_limit.as_secs().to_string()])
            .args(["qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-nic", "none"])
            // Kernels patch their own code as they boot, and emulated by two threads some hang there.
            .args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2"])
            .args([
                "-m",
                &self.memory_mib.to_string(),
                "-object",
                &memory,
                "-machine",
                "q35,memory-backend=memory",
            ])
            .args(["-chardev", &format!("socket,id=share,path={}", socket.display())])
            .args(["-device", "vhost-user-fs-pci,chardev=share,tag=host"])
            .args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", "console=ttyS0 panic=-1 no_timer_check"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run timeout")
    }

    /// Collects what the command prints until qemu ends.
    fn follow(&self, qemu: &mut Child) -> Result<String> {
        let pipe = qemu.stdout.take().context("qemu has no output")?;
        let mut output = String::new();
        for line in BufReader::new(pipe).split(b'\n') {
            let line = line.context("cannot read from qemu")?;
            let line = String::from_utf8_lossy(&line);
            if let Some(name) = self.shown_after
                && !line.is_empty()
            {
                // Who reads our output may go away; the guest runs on and is waited for.
                let _ = writeln!(std::io::stdout(), "{name}: {line}");
            }
            output.extend([&*line, "\n"]);
        }
        Ok(output)
    }
}

/// The readable part of a log, which may not exist.
fn text(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn status(control: &Path) -> Option<i32> {
    fs::read_to_string(control.join("status")).ok()?.trim().parse().ok()
}
