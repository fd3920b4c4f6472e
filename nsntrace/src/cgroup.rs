//! Where the cgroup2 tree is, and where in it we and others are. On a hybrid host it is beside the v1 controllers.

mod find;
mod process;
mod removal;

pub use find::find;
pub use process::{Tree, shares_network};
pub use removal::Removal;

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{Context, Error, Result},
    mount_fd, proc,
};

/// The cgroup that this process is in.
#[derive(Clone, Debug)]
pub struct Own {
    /// The way to its folder, for this process.
    pub path: PathBuf,
    /// Where no cgroup2 is mounted, one that is mounted nowhere and for us alone.
    pub hidden: Option<Hidden>,
}

/// A cgroup2 that is mounted nowhere: it is there as long as somebody holds it.
#[derive(Clone, Debug)]
pub struct Hidden {
    mount: Arc<OwnedFd>,
    /// What we are in, from its root.
    pub own: PathBuf,
}

impl Hidden {
    /// One more, for a process that may make one. `own` is kept.
    ///
    /// # Errors
    /// Where the kernel has no cgroup2, or gives it to nobody here.
    pub fn new(own: PathBuf) -> Result<Self> {
        let mount = mount_fd::file_system(c"cgroup2").context("use", "a cgroup2, of which none is mounted");
        Ok(Self { mount: Arc::new(mount?), own })
    }

    /// The way to a folder in it, for this process as long as it is held.
    pub fn path(&self, folder: &Path) -> PathBuf {
        Path::new("/proc/self/fd").join(self.mount.as_raw_fd().to_string()).join(folder)
    }
}

/// The cgroup that this process is in.
///
/// # Errors
/// Where cgroup2 does not show this process, or there is none.
pub fn own() -> Result<Own> {
    let groups = fs::read_to_string("/proc/self/cgroup").context("read", "/proc/self/cgroup")?;
    let mounts = mounts()?;
    if let Some(path) = locate(&mounts, &groups) {
        return Ok(Own { path, hidden: None });
    }
    let own = own_in_a_new_mount(&groups).filter(|_| widest(&mounts).is_none()).ok_or_else(not_mounted)?;
    let hidden = Hidden::new(own)?;
    Ok(Own { path: hidden.path(&hidden.own), hidden: Some(hidden) })
}

/// What the kernel says that we are in, if it is below the root of what we would mount.
fn own_in_a_new_mount(groups: &str) -> Option<PathBuf> {
    let path = Path::new(groups.lines().find_map(|line| line.strip_prefix("0::/"))?);
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    is_below.then(|| path.to_owned())
}

/// Where cgroup2 is mounted: of several mounts, which all show the same tree, that which shows most of it.
///
/// # Errors
/// Where it is not.
pub fn mount() -> Result<PathBuf> {
    widest(&mounts()?).ok_or_else(not_mounted)
}

fn widest(mountinfo: &str) -> Option<PathBuf> {
    let mounts = mountinfo.lines().filter_map(cgroup2_mount);
    mounts.min_by_key(|(root, _)| root.components().count()).map(|(_, mount)| mount)
}

fn mounts() -> Result<String> {
    proc::mounts().context("read", "/proc/self/mountinfo")
}

fn not_mounted() -> Error {
    Error::told(
        "no cgroup2 file system shows this process: mount one with 'mount -t cgroup2 none /sys/fs/cgroup/unified'",
    )
}

/// The processes in the cgroup and below it. One that this process's pid namespace does not show is 0.
pub fn processes(path: &Path) -> Vec<u32> {
    // A cgroup that has just been removed has none.
    let procs = |path: PathBuf| fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let texts: Vec<_> = below(path).into_iter().map(procs).collect();
    texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.parse().ok()).collect()
}

/// The cgroup in this folder and those below it, parents first.
pub fn below(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        let entries = path.read_dir().into_iter().flatten().flatten();
        all.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        next += 1;
    }
    all
}

/// Joins the mount of cgroup2 and the process's path in it, which counts from the root of the hierarchy while the
/// mount may show a part.
fn locate(mountinfo: &str, cgroups: &str) -> Option<PathBuf> {
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mountinfo.lines().filter_map(cgroup2_mount).find_map(|(root, mount)| {
        let below = Path::new(path).strip_prefix(root).ok()?;
        // One that this cgroup namespace does not show is told as one above it.
        below.components().all(|part| matches!(part, Component::Normal(_))).then_some(())?;
        Some(if below.as_os_str().is_empty() { mount } else { mount.join(below) })
    })
}

/// Root and mount point, if the line of mountinfo is of a cgroup2. See proc_pid_mountinfo(5).
fn cgroup2_mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (mount, file_system) = line.split_once(" - ")?;
    if file_system.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    Some((unescape(fields.next()?), unescape(fields.next()?)))
}

/// Blanks and backslashes stand as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    plain.iter().fold(field.to_owned(), |text, (code, sign)| text.replace(code, sign)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                          40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                          41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
    const PURE: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn hybrid_and_pure_hosts() {
        let hybrid = locate(HYBRID, "9:name=systemd:/\n0::/\n");
        assert_eq!(hybrid.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let pure = locate(PURE, "0::/user.slice/session-3.scope\n");
        assert_eq!(pure.as_deref(), Some(Path::new("/sys/fs/cgroup/user.slice/session-3.scope")));
    }

    #[test]
    fn a_mount_that_shows_a_part() {
        let part = "30 23 0:26 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(locate(part, "0::/docker/1/x\n").as_deref(), Some(Path::new("/sys/fs/cgroup/x")));
        assert_eq!(locate(part, "0::/elsewhere\n"), None);
    }

    #[test]
    fn of_several_mounts_the_one_that_shows_most() {
        let part = "25 23 0:38 /docker/1 /srv/1/cgroup rw - cgroup2 cgroup2 rw\n";
        let mounts = format!("{part}{HYBRID}");
        assert_eq!(widest(&mounts).as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(widest(part).as_deref(), Some(Path::new("/srv/1/cgroup")));
    }

    #[test]
    fn no_cgroup2() {
        assert_eq!(locate("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n", "0::/\n"), None);
        assert_eq!(locate(PURE, "4:memory:/\n"), None);
        assert_eq!(locate(PURE, "0::/../x\n"), None, "above what this cgroup namespace shows");
    }

    #[test]
    fn own_cgroup_in_a_mount_of_our_own() {
        assert_eq!(own_in_a_new_mount("3:cpu:/x\n0::/docker/1\n"), Some("docker/1".into()));
        assert_eq!(own_in_a_new_mount("0::/\n"), Some(PathBuf::new()));
        assert_eq!(own_in_a_new_mount("0::/../outside\n"), None);
        assert_eq!(own_in_a_new_mount("3:cpu:/x\n"), None);
    }

    #[test]
    fn blanks_in_a_mount_point() {
        let line = r"30 23 0:26 / /mnt/a\040b rw - cgroup2 none rw";
        assert_eq!(locate(line, "0::/\n").as_deref(), Some(Path::new("/mnt/a b")));
    }
}
