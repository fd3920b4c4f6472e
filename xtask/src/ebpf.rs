//! The eBPF object: built for the BPF target with the pinned stable toolchain, the same bytes wherever it is built.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    setup,
    shell::{cargo, root, run, stdout},
};

/// The object that nsntrace embeds, in the repository.
const COMMITTED: &str = "nsntrace/bpf/nsntrace.bpf.o";

/// Builds the object and puts it into the repository.
///
/// # Errors
/// Where it cannot be built.
pub fn build() -> Result<()> {
    let object = compile()?;
    fs::copy(&object, COMMITTED).with_context(|| format!("cannot write {COMMITTED}"))?;
    println!("{COMMITTED}: {} bytes", object.metadata()?.len());
    Ok(())
}

/// Builds the object and compares it with the one in the repository.
///
/// # Errors
/// Where it cannot be built, or is another one; says where the difference begins.
pub fn check() -> Result<()> {
    let built = fs::read(compile()?)?;
    let committed = fs::read(COMMITTED).with_context(|| format!("cannot read {COMMITTED}"))?;
    if built == committed {
        return Ok(());
    }
    let first =
        built.iter().zip(&committed).position(|(a, b)| a != b).unwrap_or(built.len().min(committed.len()));
    bail!(
        "{COMMITTED} is not what the source yields: {} bytes, and {} are built; they differ from byte {first} on. \
         Run 'cargo xtask build-ebpf' and commit it",
        committed.len(),
        built.len()
    )
}

/// Clippy over the kernel side, which a build for the host does not see.
///
/// # Errors
/// Where it has something to say.
pub fn lint() -> Result<()> {
    run(for_bpf("clippy")?.args(["--", "--deny", "warnings"]))
}

fn compile() -> Result<PathBuf> {
    run(&mut for_bpf("build")?)?;
    Ok(root().join("target/ebpf/bpfel-unknown-none/ebpf/nsntrace-ebpf"))
}

/// Cargo for the BPF target.
fn for_bpf(task: &str) -> Result<Command> {
    let linker = setup::bpf_linker()?;
    let mut command =
        cargo(&[task, "--quiet", "--package=nsntrace-ebpf", "--bin=nsntrace-ebpf", "--features=program"]);
    command.args([
        "--profile=ebpf",
        "--target=bpfel-unknown-none",
        "-Zbuild-std=core",
        "--target-dir=target/ebpf",
    ]);
    // Core is built from source, which stable does for who asks like this; the toolchain is pinned.
    command.env("RUSTC_BOOTSTRAP", "1");
    // What others may have set makes other bytes.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_INCREMENTAL");
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(&linker)?);
    Ok(command)
}

/// Paths are replaced, so that the object does not tell where it was built.
fn flags(linker: &std::path::Path) -> Result<String> {
    let sysroot = stdout(Command::new("rustc").args(["--print", "sysroot"]))?;
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| home + "/.cargo"))?;
    Ok([
        format!("-Clinker={}", linker.display()),
        format!("--remap-path-prefix={}=/nsntrace", root().display()),
        format!("--remap-path-prefix={home}/registry/src=/registry"),
        format!("--remap-path-prefix={}=/rust", sysroot.trim_end()),
    ]
    .join("\x1f"))
}
