//! What the machine must have: Debian's packages, and the tools that the eBPF object is built with.

use std::{fs, path::PathBuf, process::Command, thread};

use anyhow::{Result, anyhow, bail};

use crate::{
    shell::{as_root, find, root, run, stdout},
    tool,
};

/// Where Debian has libpcap, which compiles filters.
const LIBPCAP: &str = if cfg!(target_arch = "aarch64") {
    "/usr/lib/aarch64-linux-gnu/libpcap.so.0.8"
} else {
    "/usr/lib/x86_64-linux-gnu/libpcap.so.0.8"
};

/// What nsntrace itself needs, as program or file, and package.
const TO_RUN: [(&str, &str); 4] =
    [("cc", "gcc"), ("/usr/include/stdio.h", "libc6-dev"), (LIBPCAP, "libpcap0.8"), ("iptables", "iptables")];

/// What the tests judge it with and against.
const TO_TEST: [(&str, &str); 31] = [
    ("pcap-config", "libpcap-dev"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
    ("capinfos", "wireshark-common"),
    ("curl", "curl"),
    ("dig", "dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("iperf3", "iperf3"),
    ("nghttpd", "nghttp2-server"),
    ("openssl", "openssl"),
    ("nc", "netcat-openbsd"),
    ("python3", "python3"),
    ("strace", "strace"),
    ("setpriv", "util-linux"),
    ("sudo", "sudo"),
    ("sysctl", "procps"),
    ("script", "bsdutils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("dpkg", "dpkg"),
    ("git", "git"),
    ("lintian", "lintian"),
    ("man", "man-db"),
    ("mandoc", "mandoc"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("/usr/share/bash-completion/bash_completion", "bash-completion"),
];

/// What the packages are made with.
const TO_PACKAGE: [(&str, &str); 3] =
    [("dpkg-shlibdeps", "dpkg-dev"), ("strip", "binutils"), ("xz", "xz-utils")];

/// What the fuzzer's own runtime is compiled with.
const TO_FUZZ: [(&str, &str); 1] = [("c++", "g++")];

/// The linker for the BPF target. It borrows the LLVM of the toolchain, so the two belong together.
const BPF_LINKER: &str = "0.10.0";

/// Makes the package for Debian.
const CARGO_DEB: &str = "3.8.0";

/// What firewalld needs, and starts nothing.
const FOR_FIREWALLD: [&str; 4] = ["dbus-daemon", "python3-firewall", "python3-nftables", "gir1.2-glib-2.0"];

/// A reader of pcapng in Python, for one test.
const PYTHON_PCAPNG: &str = "python-pcapng==2.1.1";

/// Installs what is missing to build and run.
///
/// # Errors
/// Where a package cannot be installed.
pub fn to_run() -> Result<()> {
    packages(&TO_RUN)
}

/// Installs what is missing to build the packages.
///
/// # Errors
/// Where a package or a tool cannot be installed.
pub fn to_package() -> Result<()> {
    packages(&[&TO_RUN[..], &TO_PACKAGE[..]].concat())?;
    cargo_deb().map(|_| ())
}

/// Installs what is missing to run every check and test.
///
/// # Errors
/// Where a package or a tool cannot be installed.
pub fn for_tests() -> Result<()> {
    // Those wait for the network, these for the processor.
    thread::scope(|scope| {
        let built = scope.spawn(|| cargo_deb().and_then(|_| bpf_linker()));
        packages(&[&TO_RUN[..], &TO_TEST[..], &TO_PACKAGE[..]].concat())?;
        python_pcapng();
        firewalld();
        built.join().map_err(|_| anyhow!("a tool's build panicked"))?.map(drop)
    })
}

/// Installs what is missing to fuzz.
///
/// # Errors
/// Where a package cannot be installed.
pub fn to_fuzz() -> Result<()> {
    packages(&[&TO_RUN[..], &TO_FUZZ[..]].concat())
}

/// Installs what is missing for a soak.
///
/// # Errors
/// As [`for_tests`].
pub fn for_soak() -> Result<()> {
    for_tests()?;
    packages(&[("bpftool", "bpftool")])
}

/// Into the target folder. Where there is no pip or no PyPI, the one test says so.
fn python_pcapng() {
    let folder = root().join("target/tools/python");
    if folder.join("pcapng").exists() {
        return;
    }
    let mut install = Command::new("python3");
    install.args(["-m", "pip", "install", "--quiet", "--no-cache-dir", PYTHON_PCAPNG, "--target"]);
    match stdout(install.arg(&folder)) {
        Ok(_) => println!("setup: installed {PYTHON_PCAPNG}"),
        Err(error) => println!("setup: no {PYTHON_PCAPNG}, its test is skipped: {error:#}"),
    }
}

/// Into the target folder, and what it needs into the system: the package itself would start it on this host. Where it
/// cannot be had, its tests say so.
fn firewalld() {
    let folder = root().join("target/tools/firewalld");
    if folder.join("usr/sbin/firewalld").exists() || find("apt-get").is_none() {
        return;
    }
    let fetch = || -> Result<()> {
        install(&FOR_FIREWALLD)?;
        let archives = root().join("target/tools/archives");
        fs::create_dir_all(&archives)?;
        // Its own user may not write here.
        let download = ["-qq", "-o", "APT::Sandbox::User=root", "download", "firewalld"];
        run(Command::new("apt-get").args(download).current_dir(&archives))?;
        for file in fs::read_dir(&archives)? {
            run(Command::new("dpkg").arg("-x").arg(file?.path()).arg(&folder))?;
        }
        Ok(fs::remove_dir_all(archives)?)
    };
    match fetch() {
        Ok(()) => println!("setup: unpacked firewalld"),
        Err(error) => println!("setup: no firewalld, its tests are skipped: {error:#}"),
    }
}

fn packages(wanted: &[(&str, &str)]) -> Result<()> {
    let mut missing: Vec<_> =
        wanted.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!("install what is missing with your package manager; Debian's names are: {}", missing.join(" "));
    }
    install(&missing)
}

fn install(packages: &[&str]) -> Result<()> {
    println!("setup: installing {}", packages.join(" "));
    run(as_root("apt-get").args(["-qq", "update"]))?;
    let mut install = as_root("env");
    install.args([
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-qq",
        "install",
        "--yes",
        "--no-install-recommends",
    ]);
    run(install.args(packages))
}

/// Whether the toolchain has the standard library for this target, which is added if it is not there. Where it cannot be
/// had, what wants it says so.
pub fn target(name: &str) -> Result<bool> {
    let add = || run(Command::new("rustup").args(["--quiet", "target", "add", name]));
    Ok(sysroot()?.join("lib/rustlib").join(name).exists() || add().is_ok())
}

/// Where the toolchain is.
pub fn sysroot() -> Result<PathBuf> {
    Ok(stdout(Command::new("rustc").args(["--print", "sysroot"]))?.trim_end().into())
}

/// The source of core, which is built for the BPF target; the rest comes with rust-toolchain.toml.
fn components() -> Result<()> {
    if sysroot()?.join("lib/rustlib/src/rust/library/core").exists() {
        return Ok(());
    }
    println!("setup: adding rust-src to the toolchain");
    run(Command::new("rustup").args(["component", "add", "rust-src"]))
}

/// The path of the linker, which is installed into the target folder if it is not there, with what else a build of the
/// eBPF object needs.
///
/// # Errors
/// Where it cannot be built.
pub fn bpf_linker() -> Result<PathBuf> {
    components()?;
    tool::installed("bpf-linker", BPF_LINKER, &[])
}

/// The path of what makes the package, installed in the same way.
///
/// # Errors
/// Where it cannot be built.
pub fn cargo_deb() -> Result<PathBuf> {
    // Without a compressor of its own: xz is there.
    tool::installed("cargo-deb", CARGO_DEB, &["--no-default-features"])
}
