//! The user with whose rights files are opened, such as who called sudo.

use std::{
    ffi::CString,
    io::{self, ErrorKind},
    path::Path,
};

use nix::{
    NixPath,
    errno::Errno,
    unistd::{AccessFlags, Gid, Uid, User, getgrouplist, setfsgid, setfsuid},
};

use crate::{own_thread, user::Account};

/// No user: who asks for it learns who it is that it would take the place of.
const NO_USER: Uid = Uid::from_raw(u32::MAX);

/// A user, as far as files are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoker {
    uid: Uid,
    gid: Gid,
    groups: Vec<libc::gid_t>,
}

impl Invoker {
    /// What sudo says in SUDO_UID and SUDO_GID; none where it does not, or where it was root.
    pub fn from_env() -> Option<Self> {
        let id = |name| std::env::var(name).ok()?.parse().ok();
        let (uid, gid) = (Uid::from_raw(id("SUDO_UID")?), Gid::from_raw(id("SUDO_GID")?));
        (!uid.is_root()).then(|| Self { uid, gid, groups: groups(uid, gid).unwrap_or_default() })
    }

    /// The user that the program runs as.
    pub fn of(account: &Account) -> Self {
        let groups = account.groups.iter().map(|group| group.as_raw()).collect();
        Self { uid: account.uid, gid: account.gid, groups }
    }

    /// The user's number.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// Does something to the file system with this user's rights and no others: in a thread that ends after it, unless the
    /// calling one has taken them on.
    ///
    /// # Errors
    /// What it comes to, or that the rights cannot be taken on.
    pub fn act<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        if setfsuid(NO_USER) == self.uid {
            return act();
        }
        own_thread::run(|| self.take_on().and_then(|()| act()))?
    }

    /// The same for this user if there is one, else with the rights of the process.
    ///
    /// # Errors
    /// As [`Invoker::act`].
    pub fn act_for<T: Send>(
        invoker: Option<&Self>,
        act: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        match invoker {
            Some(invoker) => invoker.act(act),
            None => act(),
        }
    }

    /// Takes on this user's rights to files, for the calling thread alone: the raw system call changes one thread, while that
    /// of the C library would change all.
    ///
    /// # Errors
    /// Where they cannot be had.
    pub fn take_on(&self) -> io::Result<()> {
        // SAFETY: a list with its length.
        let failed = unsafe { libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()) };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        setfsgid(self.gid);
        setfsuid(self.uid);
        // They return the value before, whether they worked or not.
        if setfsuid(NO_USER) == self.uid { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

/// Whether the calling thread has rights to a file: those that [`Invoker::take_on`] gives it, too. The C library asks for those
/// of the process where it is older than the kernel's way.
///
/// # Errors
/// Why not.
pub fn may(path: &Path, access: AccessFlags) -> nix::Result<()> {
    let done = path.with_nix_path(|path| {
        // SAFETY: a text that ends with a zero, and numbers.
        unsafe {
            libc::syscall(
                libc::SYS_faccessat2,
                libc::AT_FDCWD,
                path.as_ptr(),
                access.bits(),
                libc::AT_EACCESS,
            )
        }
    })?;
    Errno::result(done).map(drop)
}

/// The groups of a user who is in the user database.
fn groups(uid: Uid, gid: Gid) -> Option<Vec<libc::gid_t>> {
    let user = User::from_uid(uid).ok()??;
    let name = CString::new(user.name).ok()?;
    let groups = getgrouplist(&name, gid).ok()?;
    Some(groups.into_iter().map(Gid::as_raw).collect())
}
