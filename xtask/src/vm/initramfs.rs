//! What the kernel starts with: busybox, the modules that reach the host's files, and the script that goes there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::shell::stdout;

const INIT: &str = include_str!("init.sh");
const MODULES: [&str; 3] = ["virtio_pci", "virtiofs", "overlay"];

/// Makes the initramfs of `kernel` in `folder` and returns its path.
pub(super) fn build(kernel: &Kernel, folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("initramfs");
    copy(Path::new("/bin/busybox"), &tree.join("bin/busybox"))?;
    let index = read(&kernel.modules().join("modules.dep"))?;
    let builtin = read(&kernel.modules().join("modules.builtin"))?;
    for module in MODULES {
        for file in files_of(module, &index, &builtin)? {
            copy(&kernel.modules().join(file), &tree.join("lib/modules").join(&kernel.release).join(file))?;
        }
    }
    stdout(Command::new("/bin/busybox").args(["depmod", "-b"]).arg(&tree).arg(&kernel.release))?;
    write_init(&tree.join("init"))?;
    pack(&tree, &folder.join("initramfs.cpio"))
}

/// `module` and what it depends on, by their paths in the module folder; none if it is built in.
fn files_of<'a>(module: &str, index: &'a str, builtin: &str) -> Result<Vec<&'a str>> {
    let name = format!("/{module}.ko");
    if builtin.lines().any(|path| path.ends_with(&name)) {
        return Ok(Vec::new());
    }
    let mut entries = index.lines().filter_map(|line| line.split_once(':'));
    match entries.find(|(path, _)| path.ends_with(&name)) {
        Some((path, needs)) => Ok(std::iter::once(path).chain(needs.split_whitespace()).collect()),
        None => bail!("the kernel has no module {module}"),
    }
}

fn write_init(path: &Path) -> Result<()> {
    fs::write(path, INIT)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn pack(tree: &Path, archive: &Path) -> Result<PathBuf> {
    let pipeline = "find . | /bin/busybox cpio -o -H newc > \"$1\"";
    stdout(Command::new("sh").args(["-c", pipeline, "sh"]).arg(archive).current_dir(tree))?;
    Ok(archive.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder)
        .and_then(|()| fs::copy(from, to))
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::files_of;

    const INDEX: &str =
        "kernel/fs/fuse/virtiofs.ko: kernel/fs/fuse/fuse.ko kernel/a/virtio.ko\nkernel/a/virtio.ko:\n";

    #[test]
    fn a_module_comes_with_what_it_needs() {
        let files = files_of("virtiofs", INDEX, "").expect("it is in the index");
        assert_eq!(files, ["kernel/fs/fuse/virtiofs.ko", "kernel/fs/fuse/fuse.ko", "kernel/a/virtio.ko"]);
    }

    #[test]
    fn what_is_built_in_needs_no_file() {
        let files = files_of("overlay", INDEX, "kernel/fs/overlayfs/overlay.ko\n").expect("it is built in");
        assert!(files.is_empty());
    }

    #[test]
    fn a_module_that_is_nowhere_is_an_error() {
        assert!(files_of("overlay", INDEX, "").is_err());
    }
}
