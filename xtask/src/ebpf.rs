//! The eBPF object: built for the BPF target with the pinned stable toolchain, the same bytes wherever it is built.

mod types;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    setup,
    setup::sysroot,
    shell::{cargo, root, run, stdout},
};

/// An object that nsntrace embeds.
struct Object {
    /// Where it is in the repository.
    committed: &'static str,
    features: &'static str,
    /// Whether it tells the types of its maps.
    has_types: bool,
}

/// The capture, and the same with the owners of packets.
const OBJECTS: [Object; 2] = [
    Object { committed: "nsntrace/bpf/nsntrace.bpf.o", features: "program", has_types: false },
    Object { committed: "nsntrace/bpf/owner.bpf.o", features: "owner", has_types: true },
];

/// Where they are built, with one core for both.
const FOLDER: &str = "target/ebpf";

/// Builds the objects and puts them into the repository.
///
/// # Errors
/// Where one cannot be built.
pub fn build() -> Result<()> {
    for object in &OBJECTS {
        let bytes = object.compile()?;
        fs::write(object.committed, &bytes).with_context(|| format!("cannot write {}", object.committed))?;
        println!("{}: {} bytes", object.committed, bytes.len());
    }
    Ok(())
}

/// Builds the objects and compares them with those in the repository.
///
/// # Errors
/// Where one cannot be built, or is another one; says where the difference begins.
pub fn check() -> Result<()> {
    for object in &OBJECTS {
        object.check()?;
    }
    Ok(())
}

/// Clippy over the kernel side, which a build for the host does not see.
///
/// # Errors
/// Where it has something to say.
pub fn lint() -> Result<()> {
    for object in &OBJECTS {
        run(object.cargo("clippy")?.args(["--", "--deny", "warnings"]))?;
    }
    Ok(())
}

impl Object {
    fn check(&self) -> Result<()> {
        let built = self.compile()?;
        let committed =
            fs::read(self.committed).with_context(|| format!("cannot read {}", self.committed))?;
        if built == committed {
            return Ok(());
        }
        let first = built
            .iter()
            .zip(&committed)
            .position(|(a, b)| a != b)
            .unwrap_or(built.len().min(committed.len()));
        bail!(
            "{} is not what the source yields: {} bytes, and {} are built; they differ from byte {first} on. \
             Run 'cargo xtask build-ebpf' and commit it",
            self.committed,
            committed.len(),
            built.len()
        )
    }

    fn compile(&self) -> Result<Vec<u8>> {
        run(&mut self.cargo("build")?)?;
        let mut path = root().join(FOLDER).join("bpfel-unknown-none/ebpf/nsntrace-ebpf");
        if self.has_types {
            path = add_types(&path)?;
        }
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Cargo for the BPF target.
    fn cargo(&self, task: &str) -> Result<Command> {
        let linker = setup::bpf_linker()?;
        let features = format!("--features={}", self.features);
        let mut command =
            cargo(&[task, "--quiet", "--package=nsntrace-ebpf", "--bin=nsntrace-ebpf", &features]);
        command.args(["--profile=ebpf", "--target=bpfel-unknown-none", "-Zbuild-std=core", "--target-dir"]);
        command.arg(FOLDER);
        // Core is built from source, which stable does for who asks like this; the toolchain is pinned.
        command.env("RUSTC_BOOTSTRAP", "1");
        // What others may have set makes other bytes.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_INCREMENTAL");
        command.env("CARGO_ENCODED_RUSTFLAGS", flags(&linker)?);
        Ok(command)
    }
}

/// Puts the types of maps into a copy of an object, by the toolchain's own tool. Returns where that is.
fn add_types(object: &Path) -> Result<PathBuf> {
    let types = object.with_extension("types");
    fs::write(&types, types::description()).with_context(|| format!("cannot write {}", types.display()))?;
    let library = sysroot()?.join("lib");
    let host = stdout(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let tool = library.join("rustlib").join(host.trim_end()).join("bin/rust-objcopy");
    let section = format!("--add-section=.BTF={}", types.display());
    let whole = object.with_extension("o");
    run(Command::new(tool).env("LD_LIBRARY_PATH", library).arg(section).args([object, &whole]))?;
    Ok(whole)
}

/// Paths are replaced, so that the object does not tell where it was built.
fn flags(linker: &Path) -> Result<String> {
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| home + "/.cargo"))?;
    Ok([
        format!("-Clinker={}", linker.display()),
        format!("--remap-path-prefix={}=/nsntrace", root().display()),
        format!("--remap-path-prefix={home}/registry/src=/registry"),
        format!("--remap-path-prefix={}=/rust", sysroot()?.display()),
    ]
    .join("\x1f"))
}
