//! What a process or thread of ours may still do when it is set up. SECURITY.md says what for.

use caps::{
    CapSet::{Effective, Inheritable, Permitted},
    Capability::{
        self, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN,
        CAP_SYS_CHROOT, CAP_SYS_PTRACE,
    },
    CapsHashSet,
    errors::CapsError,
};
use nix::sys::prctl::set_no_new_privs;

use crate::{
    cgroup,
    error::{Context, Result},
};

/// Of the tracer of a program. It goes into namespaces, and mounts there.
pub const TRACER: &[Capability] =
    &[CAP_DAC_OVERRIDE, CAP_KILL, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SYS_PTRACE];

/// Of the tracer of a cgroup: it looks at who comes in, where /proc may hide processes of others.
pub const TRACER_OF_CGROUP: &[Capability] = &[CAP_SYS_PTRACE];

/// Of the guardian: it undoes.
const GUARDIAN: &[Capability] = &[CAP_DAC_OVERRIDE, CAP_KILL, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE];

/// Of the thread that writes the trace, where root has asked for it: it opens more files, and takes others' right to read.
pub const FILES_OF_ROOT: &[Capability] = &[CAP_DAC_OVERRIDE, CAP_FOWNER];

/// What the guardian keeps. Where no cgroup2 is mounted, it has to mount one.
pub fn of_guardian() -> Vec<Capability> {
    let to_mount = cgroup::mount().is_err().then_some(CAP_SYS_ADMIN);
    GUARDIAN.iter().copied().chain(to_mount).collect()
}

/// Gives up all others, for the calling thread and whatever it starts from here on. Programs that it executes do not get them
/// back, though they are root's.
///
/// # Errors
/// Where the kernel refuses it.
pub fn keep_only(kept: &[Capability]) -> Result<()> {
    set_no_new_privs().context("give up", "new privileges")?;
    let give_up = || -> std::result::Result<(), CapsError> {
        let has = caps::read(None, Permitted)?;
        let kept: CapsHashSet = kept.iter().copied().filter(|one| has.contains(one)).collect();
        caps::clear(None, Inheritable)?;
        caps::set(None, Effective, &kept)?;
        caps::set(None, Permitted, &kept)
    };
    give_up().context("give up", "capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own_thread;

    #[test]
    fn what_is_given_up_is_gone_for_one_thread() {
        let own = caps::read(None, Permitted).expect("told");
        let (left, again) = own_thread::run(|| {
            keep_only(&[CAP_KILL, CAP_NET_RAW]).expect("given up");
            let left = caps::read(None, Permitted).expect("told");
            (left, caps::raise(None, Permitted, CAP_SYS_ADMIN))
        })
        .expect("a thread");
        let kept: CapsHashSet = [CAP_KILL, CAP_NET_RAW].into_iter().collect();
        assert_eq!(left, own.intersection(&kept).copied().collect());
        again.expect_err("it came back");
        assert_eq!(caps::read(None, Permitted).expect("told"), own, "another thread has lost some");
    }
}
