//! What covers files of the host in the program's view: name look-ups are to become packets on the program's link.
//!
//! The files are on a tmpfs that nobody else sees and that the kernel frees with its last user. They are mounted over a
//! name and not over what a link of that name leads to, so that the host may replace that. Where it replaces the name
//! itself, the kernel takes the mount away, and it is made again.

use std::{
    ffi::{CStr, OsStr},
    fs::{File, Permissions},
    io::Write,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat},
    sys::stat::{Mode, fstatat},
};

use super::mount_fd;
use crate::error::{Context, Result};

/// A name of the host's, seen from its root, and the file that the program finds there.
#[derive(Clone, Copy, Debug)]
struct Cover {
    path: &'static CStr,
    file: &'static CStr,
}

const RESOLV_CONF: Cover = Cover { path: c"etc/resolv.conf", file: c"resolv.conf" };

/// Services that look names up for others: nss-resolve's, nscd, and nss-mdns's. Without them the C library asks name
/// servers. What is no socket refuses who connects.
const SOCKETS: [Cover; 3] = [
    Cover { path: c"run/systemd/resolve/io.systemd.Resolve", file: NO_SOCKET },
    Cover { path: c"run/nscd/socket", file: NO_SOCKET },
    Cover { path: c"run/avahi-daemon/socket", file: NO_SOCKET },
];

const NO_SOCKET: &CStr = c"no-socket";

/// The covers of one program, and the file system that they are on.
#[derive(Debug)]
pub struct Covers {
    folder: OwnedFd,
    list: Vec<Cover>,
}

impl Covers {
    /// Readies them, with this text as the program's resolv.conf or with the host's own in place.
    ///
    /// # Errors
    /// Where there can be no tmpfs.
    pub fn prepare(resolv_conf: Option<&str>) -> Result<Self> {
        let folder = mount_fd::tmpfs().context("make", "a file system for the program's view")?;
        let covers =
            Self { folder, list: resolv_conf.map(|_| RESOLV_CONF).into_iter().chain(SOCKETS).collect() };
        covers.write(NO_SOCKET, "", 0o666)?;
        covers.write(RESOLV_CONF.file, resolv_conf.unwrap_or_default(), 0o644)?;
        Ok(covers)
    }

    fn write(&self, name: &CStr, text: &str, mode: u32) -> Result<()> {
        let make = || {
            let flags = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let mut file = File::from(openat(&self.folder, name, flags, Mode::S_IRUSR)?);
            file.write_all(text.as_bytes())?;
            // Whatever the umask is.
            file.set_permissions(Permissions::from_mode(mode))
        };
        make().context("write", "a file for the program's view")
    }

    /// Attaches their file system at `place`, where something else is to cover it, and covers what is there. In the
    /// program's mount namespace, between fork and exec: it makes system calls only.
    ///
    /// # Errors
    /// Where the kernel refuses the attachment. What cannot be covered stays as it is.
    pub fn put_up(&self, place: &CStr) -> nix::Result<()> {
        let root = open(c"/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        mount_fd::attach(self.folder.as_fd(), root.as_fd(), place)?;
        for cover in &self.list {
            let _ = self.renew(*cover, &root);
        }
        Ok(())
    }

    /// Covers the names that are there below `root` and not covered. In its mount namespace.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn renew_all(&self, root: &OwnedFd) -> Result<()> {
        for cover in &self.list {
            match self.renew(*cover, root) {
                Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) => return Err(error).context("cover", cover.path.to_string_lossy()),
            }
        }
        Ok(())
    }

    fn renew(&self, cover: Cover, root: &OwnedFd) -> nix::Result<()> {
        let found = fstatat(root, cover.path, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let wanted = fstatat(&self.folder, cover.file, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino) {
            return Ok(());
        }
        mount_fd::bind(self.folder.as_fd(), cover.file, root.as_fd(), cover.path)
    }

    /// The folders in which the host may replace a name.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let path = |cover: &Cover| Path::new("/").join(OsStr::from_bytes(cover.path.to_bytes()));
        self.list.iter().filter_map(move |cover| path(cover).parent().map(Path::to_owned))
    }
}
