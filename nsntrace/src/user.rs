//! The user that the program runs as.

use std::{
    ffi::{CString, OsString},
    path::Path,
};

use nix::{
    errno::Errno,
    unistd::{Gid, Uid, User, getgrouplist},
};

use crate::error::{Context, Error, Result};

/// A user, with everything that a login would look up.
#[derive(Clone, Debug)]
pub struct Account {
    /// User id.
    pub uid: Uid,
    /// Primary group.
    pub gid: Gid,
    /// All groups.
    pub groups: Vec<Gid>,
    name: String,
    home: OsString,
    shell: OsString,
}

/// Looks a user up by name, or by number where no user has that name.
///
/// # Errors
/// Where there is no such user.
pub fn look_up(user: &str) -> Result<Account> {
    let by_name = User::from_name(user).context("look up", format_args!("user {user}"))?;
    let found = match (by_name, user.parse()) {
        (Some(found), _) => Some(found),
        (None, Ok(id)) => {
            User::from_uid(Uid::from_raw(id)).context("look up", format_args!("user {user}"))?
        }
        (None, Err(_)) => None,
    };
    let found = found.ok_or_else(|| Error::told(format!("Unknown user: {user}")))?;
    let name = CString::new(found.name.as_str()).context("use", format_args!("user {user}"))?;
    let groups =
        getgrouplist(&name, found.gid).context("look up", format_args!("the groups of user {user}"))?;
    Ok(Account {
        uid: found.uid,
        gid: found.gid,
        groups,
        name: found.name,
        home: found.dir.into(),
        shell: found.shell.into(),
    })
}

impl Account {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the calling process the user's: between fork and exec, where the C library's own ways may wait for threads
    /// that are not there.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn become_it(&self) -> nix::Result<()> {
        let groups = self.groups.as_ptr().cast::<libc::gid_t>();
        // SAFETY: the call reads as many group ids as there are; a Gid is one.
        let set = unsafe { libc::syscall(libc::SYS_setgroups, self.groups.len(), groups) };
        Errno::result(set)?;
        // SAFETY: plain numbers.
        Errno::result(unsafe { libc::syscall(libc::SYS_setgid, self.gid.as_raw()) })?;
        // SAFETY: plain numbers.
        Errno::result(unsafe { libc::syscall(libc::SYS_setuid, self.uid.as_raw()) }).map(drop)
    }

    /// What changes in the program's environment; none takes a variable away. The desktop session of the user counts
    /// where there is one, and root's never does.
    pub fn environment(&self) -> Vec<(&'static str, Option<OsString>)> {
        let runtime = format!("/run/user/{}", self.uid);
        let bus = format!("{runtime}/bus");
        let there = |path: &str, value: String| Path::new(path).exists().then(|| value.into());
        vec![
            ("HOME", Some(self.home.clone())),
            ("USER", Some(self.name.clone().into())),
            ("LOGNAME", Some(self.name.clone().into())),
            ("SHELL", Some(self.shell.clone())),
            ("XDG_RUNTIME_DIR", there(&runtime, runtime.clone())),
            ("DBUS_SESSION_BUS_ADDRESS", there(&bus, format!("unix:path={bus}"))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_by_name_and_by_number() {
        for user in ["root", "0"] {
            let account = look_up(user).expect("there");
            assert!(account.uid.is_root() && account.groups.contains(&account.gid), "{account:?}");
        }
    }

    #[test]
    fn unknown_users_are_told() {
        for user in ["no-such-user", "4294967290", "-1", ""] {
            assert_eq!(look_up(user).expect_err(user).to_string(), format!("Unknown user: {user}"));
        }
    }
}
