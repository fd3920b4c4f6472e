//! A private view of Debian's archive: other suites than the machine's own, whose apt is left as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{output, stdout};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with a configuration, package lists and a cache of its own, in one folder.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Prepares `folder` for the suite `codename` and its security updates.
    pub(super) fn new(folder: PathBuf, codename: &str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let (debian, security) = archives()?;
        let sources = format!(
            "deb [signed-by={KEYRING}] {debian} {codename} main\n\
             deb [signed-by={KEYRING}] {security} {codename}-security main\n"
        );
        write(&folder.join("sources.list"), &sources)?;
        write(&folder.join("apt.conf"), &configuration(&folder)?)?;
        Ok(Self { folder })
    }

    /// Reads the package lists. False means that the archive no longer has the suite.
    pub(super) fn update(&self) -> Result<bool> {
        let output = output(self.command("apt-get").arg("update"))?;
        if output.status.success() {
            return Ok(true);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        if complaint.contains("does not have a Release file") {
            return Ok(false);
        }
        bail!("apt-get update: {}", complaint.trim_end());
    }

    /// The package that the newest version of `metapackage` stands for, if there is one that starts with `prefix`.
    pub(super) fn dependency(&self, metapackage: &str, prefix: &str) -> Result<Option<String>> {
        let output = output(self.command("apt-cache").args(["show", "--no-all-versions", metapackage]))?;
        let record = String::from_utf8_lossy(&output.stdout);
        let depends = record.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        let package = depends.split([' ', ',']).find(|word| word.starts_with(prefix));
        Ok(package.map(str::to_owned))
    }

    /// Downloads `package` and unpacks it into `destination`. Nothing is installed.
    pub(super) fn unpack(&self, package: &str, destination: &Path) -> Result<()> {
        stdout(self.command("apt-get").args(["download", package]))?;
        stdout(Command::new("dpkg").arg("-x").arg(self.downloaded()?).arg(destination))?;
        Ok(())
    }

    fn downloaded(&self) -> Result<PathBuf> {
        let entries =
            fs::read_dir(&self.folder).with_context(|| format!("cannot read {}", self.folder.display()))?;
        let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        paths
            .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
            .with_context(|| format!("apt-get left no package in {}", self.folder.display()))
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C").current_dir(&self.folder);
        command
    }
}

/// Where the machine gets Debian and its security updates from, else where everyone does.
fn archives() -> Result<(String, String)> {
    let arguments = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let used = stdout(Command::new("apt-get").args(arguments))?;
    let find = |ending: &str| used.lines().find(|uri| uri.trim_end_matches('/').ends_with(ending));
    let debian = find("/debian").unwrap_or("http://deb.debian.org/debian");
    let security = find("/debian-security").unwrap_or("http://deb.debian.org/debian-security");
    Ok((debian.to_owned(), security.to_owned()))
}

/// The machine's way to the network (proxies, time limits), but none of its hooks, indexes, sources and folders.
fn configuration(folder: &Path) -> Result<String> {
    let machine = stdout(Command::new("apt-config").arg("dump"))?;
    let mut text: String = machine
        .lines()
        .filter(|line| line.starts_with("Acquire::") && !line.starts_with("Acquire::IndexTargets"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let folder = folder.display();
    text.push_str(&format!(
        r#"Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}/cache";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
"#
    ));
    Ok(text)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
