//! The server of the files that the guest sees.

use std::fs;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};

use super::kernel::Kernel;
use crate::shell::is_root;

const SCRIPT: &str = include_str!("share.sh");
/// Where Debian has it: part of qemu up to release 12, a package of its own since.
const SERVERS: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

/// A running virtiofsd. It ends when qemu does, or with this value.
pub(super) struct Share {
    /// The socket that qemu connects to.
    pub(super) socket: PathBuf,
    server: Child,
}

impl Share {
    /// Serves this machine's root with the modules of `kernel` and the folders `exchange` and `control`.
    ///
    /// `folder` takes its log and the place where the tree is put together.
    pub(super) fn start(kernel: &Kernel, exchange: &Path, control: &Path, folder: &Path) -> Result<Self> {
        ensure!(is_root(), "only root can serve this machine's files to a guest");
        let program = SERVERS.iter().find(|path| Path::new(path).exists());
        let program = program.context("no virtiofsd here: install qemu-system-common or virtiofsd")?;
        // Not below the target directory: the path of a socket has at most 107 bytes.
        let socket = format!("nsntrace-vm-{}-{}.socket", std::process::id(), kernel.release);
        let socket = std::env::temp_dir().join(socket);
        let _ = fs::remove_file(&socket);
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("cannot bind {}", socket.display()))?;
        let tree = folder.join("tree");
        fs::create_dir_all(&tree).with_context(|| format!("cannot make {}", tree.display()))?;
        let log = folder.join("virtiofsd.log");
        let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let server = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh", program])
            .args([&tree, &kernel.modules(), exchange, control])
            .stdin(OwnedFd::from(listener))
            .stdout(log.try_clone().context("cannot share the server's log")?)
            .stderr(log)
            .spawn()
            .context("cannot run unshare")?;
        Ok(Self { socket, server })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_file(&self.socket);
    }
}
