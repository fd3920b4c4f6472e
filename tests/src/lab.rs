//! The lab itself: two spaces, a cable between them, and ways to run things in either.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::space::Space;
use crate::{Cgroup, Job, SOON, cgroup, until};

/// The fake host's device towards the fake internet.
pub const HOST_DEVICE: &str = "eth1";
/// The fake host's address.
pub const HOST_ADDRESS: &str = "10.99.0.1";
/// The fake internet's device towards the fake host.
pub const INTERNET_DEVICE: &str = "inet0";
/// The address of all servers, one hop behind the fake host's gateway.
pub const SERVER_ADDRESS: &str = "203.0.113.7";

/// The same in IPv6, in a lab that has it: the fake host's address, and that of all servers.
pub const HOST_ADDRESS6: &str = "2001:db8:99::1";
/// See [`HOST_ADDRESS6`].
pub const SERVER_ADDRESS6: &str = "2001:db8:7::7";

const CGROUP_PREFIX: &str = "nsntrace-lab-";
const TOOLS: [&str; 17] = [
    "busybox", "capinfos", "curl", "dig", "dnsmasq", "ip", "iperf3", "iptables", "nft", "nghttpd", "openssl",
    "prlimit", "python3", "setpriv", "ss", "tcpdump", "tshark",
];

/// A fake host and a fake internet. Dropping it ends all that runs in them.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order: the processes end first.
    internet_cgroup: Cgroup,
    host_cgroup: Cgroup,
    tracer_cgroup: Cgroup,
    _cgroup: Cgroup,
    internet: Space,
    host: Space,
    dir: TempDir,
    jobs: AtomicU32,
}

impl Lab {
    /// Builds the two sides and joins them.
    pub fn new() -> Result<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        cgroup::sweep(CGROUP_PREFIX)?;
        let name = format!("{CGROUP_PREFIX}{}-{}", process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let cgroup = Cgroup::below_own(&name)?;
        let dir = tempfile::Builder::new().prefix(CGROUP_PREFIX).tempdir()?;
        // Programs that run as another user must get at their files.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let lab = Self {
            internet_cgroup: cgroup.child("internet")?,
            host_cgroup: cgroup.child("host")?,
            tracer_cgroup: cgroup.child("tracer")?,
            _cgroup: cgroup,
            internet: Space::new(&dir.path().join("internet"))?,
            host: Space::new(&dir.path().join("host"))?,
            dir,
            jobs: AtomicU32::new(0),
        };
        lab.join()?;
        Ok(lab)
    }

    /// No link-local IPv6 addresses on the cable: they come late, and snapshots would differ by them.
    fn join(&self) -> Result<()> {
        let netns = self.internet.net_path();
        let host = format!(
            "link set lo up\n\
             link add {HOST_DEVICE} type veth peer name {INTERNET_DEVICE} netns {netns}\n\
             link set {HOST_DEVICE} addrgenmode none\n\
             address add {HOST_ADDRESS}/24 dev {HOST_DEVICE}\n\
             link set {HOST_DEVICE} up\n\
             route add default via 10.99.0.2 dev {HOST_DEVICE}\n"
        );
        let internet = format!(
            "link set lo up\n\
             address add {SERVER_ADDRESS}/32 dev lo\n\
             address add 10.99.0.2/24 dev {INTERNET_DEVICE}\n\
             link set {INTERNET_DEVICE} addrgenmode none\n\
             link set {INTERNET_DEVICE} up\n"
        );
        self.host(["ip", "-batch", "-"])?.input(host.as_bytes())?.output()?;
        self.internet(["ip", "-batch", "-"])?.input(internet.as_bytes())?.output()?;
        self.has_carrier(HOST_DEVICE)
    }

    /// Gives both sides IPv6 addresses, which are usable at once, and the fake host a default route.
    pub fn ipv6(&self) -> Result<()> {
        self.ipv6_on_the_link()?;
        let route = ["ip", "-6", "route", "add", "default", "via", "fe80::2", "dev", HOST_DEVICE];
        self.host(route)?.output().map(drop)
    }

    /// The same without the route.
    pub fn ipv6_on_the_link(&self) -> Result<()> {
        let host = format!(
            "address add fe80::1/64 dev {HOST_DEVICE} nodad\n\
             address add {HOST_ADDRESS6}/64 dev {HOST_DEVICE} nodad\n"
        );
        let internet = format!(
            "address add fe80::2/64 dev {INTERNET_DEVICE} nodad\n\
             address add 2001:db8:99::2/64 dev {INTERNET_DEVICE} nodad\n\
             address add {SERVER_ADDRESS6}/128 dev lo nodad\n"
        );
        self.host(["ip", "-batch", "-"])?.input(host.as_bytes())?.output()?;
        self.internet(["ip", "-batch", "-"])?.input(internet.as_bytes())?.output()?;
        // They are part of a snapshot, and come a moment after the addresses.
        until("the kernel's own routes to the addresses", SOON, || {
            let routes = self.host(["ip", "-6", "route", "show", "table", "local"])?.output()?;
            let has = |address: &str| routes.contains(&format!("local {address} "));
            Ok((has(HOST_ADDRESS6) && has("fe80::1")).then_some(()))
        })
    }

    /// A cable's state follows a moment after its ends are up.
    fn has_carrier(&self, device: &str) -> Result<()> {
        until(&format!("a carrier on {device}"), SOON, || {
            let link = self.host(["ip", "-o", "link", "show", device])?.output()?;
            Ok(link.contains("state UP").then_some(()))
        })
    }

    /// A folder that has only so much room, such as `300k`, on the fake host. It is mounted there alone.
    pub fn small_disk(&self, size: &str) -> Result<String> {
        let disk = self.dir().join("disk");
        fs::create_dir(&disk)?;
        let disk = disk.display().to_string();
        self.host(["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", &disk])?.output()?;
        Ok(disk)
    }

    /// Joins them by a second cable, `eth2` 10.98.0.1 on the host: the servers are behind that one too, but
    /// only a route of last resort leads there.
    pub fn second_cable(&self) -> Result<()> {
        let netns = self.internet.net_path();
        let host = format!(
            "link add eth2 type veth peer name inet1 netns {netns}\n\
             link set eth2 addrgenmode none\n\
             address add 10.98.0.1/24 dev eth2\n\
             link set eth2 up\n\
             route add default via 10.98.0.2 dev eth2 metric 1000\n"
        );
        let internet = "link set inet1 addrgenmode none\n\
             address add 10.98.0.2/24 dev inet1\n\
             link set inet1 up\n";
        self.host(["ip", "-batch", "-"])?.input(host.as_bytes())?.output()?;
        self.internet(["ip", "-batch", "-"])?.input(internet.as_bytes())?.output()?;
        self.has_carrier("eth2")
    }

    /// A command on the fake host.
    pub fn host<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Result<Job> {
        Job::new(&self.host, &self.host_cgroup, self.next_dir(), words)
    }

    /// Runs a shell's script on the fake host, in which each command is to succeed, and returns what it prints.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.host(["sh", "-e", "-c", script])?.output()
    }

    /// A command on the fake host, in a cgroup of its own.
    pub fn host_in<W: AsRef<OsStr>>(
        &self,
        cgroup: &Cgroup,
        words: impl IntoIterator<Item = W>,
    ) -> Result<Job> {
        Job::new(&self.host, cgroup, self.next_dir(), words)
    }

    /// A cgroup for [`Lab::host_in`].
    pub fn cgroup(&self, name: &str) -> Result<Cgroup> {
        self.host_cgroup.child(name)
    }

    /// A command in the fake internet.
    pub fn internet<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Result<Job> {
        Job::new(&self.internet, &self.internet_cgroup, self.next_dir(), words)
    }

    /// `nsntrace` on the fake host, with these arguments.
    pub fn nsntrace<W: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = W>) -> Result<Job> {
        self.nsntrace_by([] as [&str; 0], arguments)
    }

    /// `nsntrace` with these arguments, started by another program, such as `prlimit`, whose last argument it is.
    pub fn nsntrace_by<V: AsRef<OsStr>, W: AsRef<OsStr>>(
        &self,
        starter: impl IntoIterator<Item = V>,
        arguments: impl IntoIterator<Item = W>,
    ) -> Result<Job> {
        let mut words: Vec<_> = starter.into_iter().map(|word| word.as_ref().to_owned()).collect();
        words.push(nsntrace_binary()?.into());
        words.extend(arguments.into_iter().map(|word| word.as_ref().to_owned()));
        self.tracer(words)
    }

    /// A command on the fake host whose processes count as those of `nsntrace`: none may be left.
    pub fn tracer<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Result<Job> {
        Job::new(&self.host, &self.tracer_cgroup, self.next_dir(), words)
    }

    /// The cgroup that every [`Lab::nsntrace`] starts in: empty when none left a process behind.
    pub fn tracer_cgroup(&self) -> &Cgroup {
        &self.tracer_cgroup
    }

    /// A folder of the lab, readable by all, for files that jobs share.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn next_dir(&self) -> PathBuf {
        self.dir.path().join(self.jobs.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

/// The binary under test: `$NSNTRACE`, or the workspace's release build.
pub fn nsntrace_binary() -> Result<PathBuf> {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/nsntrace");
    let path = env::var_os("NSNTRACE").map_or_else(built, PathBuf::from);
    path.canonicalize().with_context(|| {
        format!("no nsntrace at {}: build it with `cargo build --release`, or set NSNTRACE", path.display())
    })
}

/// The program of this name that is built beside the running one.
pub fn beside(name: &str) -> Result<String> {
    let path = env::current_exe()?.with_file_name(name);
    Ok(path.to_str().with_context(|| format!("{} is not text", path.display()))?.into())
}

/// Why there can be no lab here, if so: a reason to skip the tests, loudly.
pub fn why_no_lab() -> Option<String> {
    let possible = || -> Result<()> {
        ensure!(geteuid().is_root(), "not root");
        let missing: Vec<_> = TOOLS.into_iter().filter(|tool| !is_installed(tool)).collect();
        ensure!(missing.is_empty(), "not installed: {}", missing.join(", "));
        Cgroup::below_own(&format!("{CGROUP_PREFIX}{}", process::id()))?;
        Space::new(&tempfile::tempdir()?.path().join("space")).map(drop)
    };
    possible().err().map(|error| format!("{error:#}"))
}

fn is_installed(tool: &str) -> bool {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(tool).exists())
}
