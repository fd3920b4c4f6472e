//! What covers files of the host in the program's view: name look-ups are to become packets on the program's link.
//!
//! The files are on a tmpfs that nobody else sees and that the kernel frees with its last user. They are mounted over a
//! name and not over what a link of that name leads to, so that the host may replace that. Where it replaces the name
//! itself, the kernel takes the mount away, and it is made again.

use std::{
    ffi::{CStr, OsStr},
    fs::{File, Permissions},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat},
    sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat, mkdirat},
    unistd::fchown,
};

use crate::{
    error::{Context, Result},
    mount_fd,
    user::Account,
};

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

/// A folder that is there during a trace, and is the host's own affair.
const RUN: Cover = Cover { path: c"run/nsntrace", file: c"run" };

/// In it, the file in which the program logs TLS keys. Below a folder that only the cover has, so that nobody creates it
/// in the host.
const KEY_LOG: &CStr = c"run/program/tls-keys";

/// Where the program finds that file.
pub const KEY_LOG_PATH: &str = "/run/nsntrace/program/tls-keys";

/// The covers of one program, and the file system that they are on.
#[derive(Debug)]
pub struct Covers {
    folder: OwnedFd,
    list: Vec<Cover>,
    has_key_log: bool,
}

impl Covers {
    /// Readies them, with this text as the program's resolv.conf or with the host's own in place.
    ///
    /// # Errors
    /// Where there can be no tmpfs.
    pub fn prepare(resolv_conf: Option<&str>) -> Result<Self> {
        let folder =
            mount_fd::file_system(c"tmpfs").context("make", "a file system for the program's view")?;
        let list = resolv_conf.map(|_| RESOLV_CONF).into_iter().chain(SOCKETS).collect();
        let covers = Self { folder, list, has_key_log: false };
        covers.write(NO_SOCKET, "", 0o666)?;
        covers.write(RESOLV_CONF.file, resolv_conf.unwrap_or_default(), 0o644)?;
        Ok(covers)
    }

    /// Adds a file in which the program, which runs as this user, logs TLS keys: the file, open for us. Whoever else is
    /// in the program's tree may append to it, and not read.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn add_key_log(&mut self, account: Option<&Account>) -> Result<File> {
        let make = || {
            for folder in [c"run", c"run/program"] {
                mkdirat(&self.folder, folder, Mode::S_IRWXU)?;
                fchmodat(&self.folder, folder, Mode::from_bits_retain(0o711), FchmodatFlags::FollowSymlink)?;
            }
            let flags = OFlag::O_CREAT | OFlag::O_RDWR | OFlag::O_CLOEXEC;
            let file = File::from(openat(&self.folder, KEY_LOG, flags, Mode::S_IRUSR)?);
            fchown(&file, account.map(|account| account.uid), account.map(|account| account.gid))?;
            file.set_permissions(Permissions::from_mode(0o622))?;
            Ok::<_, io::Error>(file)
        };
        let file = make().context("make", "a file for TLS keys")?;
        self.list.push(RUN);
        self.has_key_log = true;
        Ok(file)
    }

    /// Whether there is such a file, at [`KEY_LOG_PATH`]. Then the program must not be without its covers.
    pub fn has_key_log(&self) -> bool {
        self.has_key_log
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
    /// Where the kernel refuses the attachment, or the folder of keys. What else cannot be covered stays as it is.
    pub fn put_up(&self, place: &CStr) -> nix::Result<()> {
        let root = open(c"/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        mount_fd::attach(self.folder.as_fd(), root.as_fd(), place)?;
        for cover in &self.list {
            let _ = self.renew(*cover, &root);
        }
        if self.has_key_log { self.renew(RUN, &root) } else { Ok(()) }
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
