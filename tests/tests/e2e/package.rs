//! What `cargo xtask dist` has built: it is installed on a fake host, used there, and removed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{HOST_DEVICE, Lab};

use crate::{Case, cases, extcap::are_listed};

pub const CASES: &[Case] = cases![
    what_is_installed_traces_a_download,
    wireshark_finds_what_is_installed,
    purge_leaves_nothing,
    debian_has_nothing_against_it,
    man_page_reads_well,
    bash_completes,
    fish_completes,
    zsh_knows_the_completion,
    archive_runs_where_it_is_unpacked,
    checksums_are_right,
];

/// What a package changes goes into memory instead. /etc is the lab's own already; this package has nothing there.
const OVERLAY: &str = r#"
mkdir overlay
mount -t tmpfs overlay overlay
for folder in usr var; do
    mkdir -p "overlay/$folder/upper" "overlay/$folder/work"
    mount -t overlay overlay -o "lowerdir=/$folder,upperdir=overlay/$folder/upper,workdir=overlay/$folder/work" "/$folder"
done
"#;

/// Each file with all that it is, but for what dpkg keeps for itself and what can be made anew.
const FILES: &str = r#"
find /usr /var \( -path /var/log -o -path /var/cache -o -path /var/lib/dpkg \) -prune \
    -o -type d -printf '%p %M %U %G\n' -o -printf '%p %M %U %G %s %T@ %l\n' | sort
"#;

/// What was built.
fn built(ending: &str) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist");
    let missing = || format!("no {ending} in {}: build it with `cargo xtask dist`", folder.display());
    let files = fs::read_dir(&folder).with_context(missing)?.collect::<Result<Vec<_>, _>>()?;
    let mut paths = files.iter().map(fs::DirEntry::path);
    paths
        .find(|path| path.to_string_lossy().ends_with(ending))
        .with_context(missing)?
        .canonicalize()
        .map_err(Into::into)
}

fn shell(lab: &Lab, script: &str) -> Result<String> {
    lab.host(["sh", "-ec", script])?.output()
}

/// dpkg on the fake host. Manuals are installed even where its administrator wants none, as in a container.
fn dpkg(lab: &Lab, words: &[&str]) -> Result<()> {
    lab.host([&["dpkg", "--path-include=/usr/share/*"], words].concat())?.output().map(drop)
}

fn install(lab: &Lab) -> Result<()> {
    shell(lab, OVERLAY)?;
    dpkg(lab, &["--install", &built(".deb")?.to_string_lossy()])
}

fn what_is_installed_traces_a_download(lab: &Lab) -> Result<()> {
    install(lab)?;
    traces_a_download(lab, "nsntrace")?;
    // Help is for everybody.
    let help = ["setpriv", "--reuid=65534", "--clear-groups", "nsntrace", "--help"];
    ensure!(lab.host(help)?.output()?.contains("Usage: nsntrace"), "no help");
    Ok(())
}

fn traces_a_download(lab: &Lab, nsntrace: &str) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let done = lab.tracer([nsntrace, "-q", "curl", "-s", "-o", "page", &web.url])?.run()?.exited(0)?;
    let bodies = done.trace().http_bodies()?;
    ensure!(bodies.get("data.bin") == Some(&web.body), "the trace has not what was served");
    lab.assert_clean(&before)
}

/// By itself, and the next version too, which looks elsewhere.
fn wireshark_finds_what_is_installed(lab: &Lab) -> Result<()> {
    install(lab)?;
    // A home in which there is nothing of somebody's own.
    let home = lab.dir().to_string_lossy();
    let list = || lab.host(["tshark", "-D"])?.env("HOME", &home).output();
    let listed = list()?;
    ensure!(are_listed(&listed), "{listed}");
    let links = "readlink -e /usr/lib/*/wireshark/extcap/nsntrace /usr/libexec/wireshark/extcap/nsntrace";
    ensure!(shell(lab, links)? == "/usr/bin/nsntrace\n/usr/bin/nsntrace\n", "links that lead elsewhere");
    dpkg(lab, &["--purge", "nsntrace"])?;
    let listed = list()?;
    ensure!(!listed.contains("nsntrace"), "still there: {listed}");
    Ok(())
}

fn purge_leaves_nothing(lab: &Lab) -> Result<()> {
    shell(lab, OVERLAY)?;
    let before = shell(lab, FILES)?;
    let package = built(".deb")?;
    dpkg(lab, &["--install", &package.to_string_lossy()])?;
    let during = shell(lab, FILES)?;
    ensure!(
        ["/usr/bin/nsntrace ", "/man1/nsntrace.1.gz ", "/wireshark/extcap/nsntrace "]
            .iter()
            .all(|file| during.contains(file)),
        "not installed"
    );
    // It was used, too.
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    dpkg(lab, &["--purge", "nsntrace"])?;
    let after = shell(lab, FILES)?;
    let [before, after] = [&before, &after].map(|files| files.lines().collect::<HashSet<_>>());
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    ensure!(changed.is_empty(), "left, gone or changed: {changed:?}");
    let known = lab.host(["dpkg-query", "--show", "nsntrace"])?.run()?.exited(1)?;
    ensure!(known.stderr.contains("no packages found"), "{}", known.stderr);
    let records = shell(lab, "find /var/lib/dpkg/info -name 'nsntrace*'")?;
    ensure!(records.is_empty(), "dpkg still has {records}");
    Ok(())
}

fn debian_has_nothing_against_it(lab: &Lab) -> Result<()> {
    let package = built(".deb")?;
    // Whether an archive has it already is not its own matter.
    let words = [
        "lintian",
        "--allow-root",
        "--fail-on=error,warning",
        "--suppress-tags=initial-upload-closes-no-bugs",
    ];
    let done = lab.host(words.into_iter().chain([&*package.to_string_lossy()]))?.run()?;
    done.exited(0).map(drop)
}

fn man_page_reads_well(lab: &Lab) -> Result<()> {
    install(lab)?;
    let page = lab.host(["man", "--warnings", "nsntrace"])?.env("MANWIDTH", "80").run()?.exited(0)?;
    ensure!(page.stderr.is_empty(), "{}", page.stderr);
    let text = page.text();
    for heading in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "SECURITY", "EXAMPLES", "SEE ALSO"] {
        ensure!(text.lines().any(|line| line == heading), "no {heading}");
    }
    for option in options(lab)? {
        ensure!(text.contains(&option), "{option} is not in the man page");
    }
    let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).collect();
    ensure!(wide.is_empty(), "wider than 80 columns: {wide:?}");
    let page = "/usr/share/man/man1/nsntrace.1.gz";
    lab.host(["mandoc", "-T", "lint", "-W", "warning", page])?.output().map(drop)
}

/// The long options that the help has.
fn options(lab: &Lab) -> Result<Vec<String>> {
    let help = lab.host(["nsntrace", "--help"])?.output()?;
    let lines = help.lines().filter(|line| line.trim_start().starts_with('-'));
    let words = lines.flat_map(|line| line.split([' ', ',', '[', '.'])).filter(|word| word.starts_with("--"));
    let options: Vec<_> = words.map(str::to_owned).collect();
    ensure!(options.len() > 20, "few options: {options:?}");
    Ok(options)
}

/// What bash offers where the cursor is behind the last of these words.
const BASH: &str = r#"
. /usr/share/bash-completion/bash_completion
_completion_loader nsntrace
COMP_LINE=$1
COMP_POINT=${#COMP_LINE}
shift
COMP_WORDS=(nsntrace "$@")
COMP_CWORD=$#
_nsntrace nsntrace "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

fn bash_completes(lab: &Lab) -> Result<()> {
    install(lab)?;
    lab.host(["bash", "-n", "/usr/share/bash-completion/completions/nsntrace"])?.output()?;
    completes(|words| {
        // It makes three words of an assignment.
        let line = format!("nsntrace {}", words.join(" "));
        let words = words.iter().flat_map(|word| match word.split_once('=') {
            Some((name, value)) => vec![name, "=", value],
            None => vec![*word],
        });
        lab.host(["bash", "-c", BASH, "bash", &line].into_iter().chain(words))?.output()
    })
}

fn fish_completes(lab: &Lab) -> Result<()> {
    install(lab)?;
    lab.host(["fish", "-n", "/usr/share/fish/vendor_completions.d/nsntrace.fish"])?.output()?;
    completes(|words| {
        let line = format!("complete -C 'nsntrace {}'", words.join(" "));
        let told = lab.host(["fish", "-c", &line])?.output()?;
        // Each with what it means.
        let offers = told.lines().map(|line| line.split('\t').next().unwrap_or_default());
        Ok(offers.map(|offer| offer.rsplit('=').next().unwrap_or(offer).to_owned() + "\n").collect())
    })
}

/// Asks a shell what it offers.
fn completes(offers: impl Fn(&[&str]) -> Result<String>) -> Result<()> {
    let offer = |words: &[&str], wanted: &str, unwanted: &str| -> Result<()> {
        let told = offers(words)?;
        let has = |word: &str| told.lines().any(|line| line.trim_end() == word);
        ensure!(has(wanted) && !has(unwanted), "{words:?} gives {told}");
        Ok(())
    };
    offer(&["--t"], "--tls-keys", "--loopback")?;
    offer(&["-q", "--out"], "--outfile", "--tls-keys")?;
    offer(&["-u", "roo"], "root", "--user")?;
    offer(&["--user", "roo"], "root", "curl")?;
    offer(&["-d", "et"], HOST_DEVICE, "lo")?;
    offer(&["--format", ""], "pcapng", "curl")?;
    offer(&["--summary=j"], "json", "table")?;
    offer(&["setpri"], "setpriv", "--outfile")?;
    offer(&["-o", "page", "-q", "setpri"], "setpriv", "--outfile")?;
    offer(&["--outfile=page", "setpri"], "setpriv", "--outfile")?;
    offer(&["--", "setpri"], "setpriv", "--outfile")?;
    offer(&["curl", "--out"], "--output", "--outfile")?;
    offer(&["-d", HOST_DEVICE, "curl", "--out"], "--output", "--outfile")
}

/// It is found where zsh looks for it, and is the command's.
fn zsh_knows_the_completion(lab: &Lab) -> Result<()> {
    install(lab)?;
    lab.host(["zsh", "-n", "/usr/share/zsh/vendor-completions/_nsntrace"])?.output()?;
    let script = "autoload -U compinit && compinit -D -u && autoload +X _nsntrace && print $_comps[nsntrace]";
    let told = lab.host(["zsh", "-fc", script])?.output()?;
    ensure!(told == "_nsntrace\n", "{told}");
    Ok(())
}

fn archive_runs_where_it_is_unpacked(lab: &Lab) -> Result<()> {
    let archive = built(".tar.gz")?;
    let name = archive.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    ensure!(name.starts_with("nsntrace-") && name.contains(std::env::consts::ARCH), "{name}");
    let folder = lab.dir().join("local");
    fs::create_dir(&folder)?;
    let (archive, to) = (archive.to_string_lossy(), folder.to_string_lossy());
    lab.host(["tar", "-xzf", &archive, "-C", &to, "--strip-components=1"])?.output()?;
    for file in [
        "share/man/man1/nsntrace.1.gz",
        "share/bash-completion/completions/nsntrace",
        "share/zsh/site-functions/_nsntrace",
        "share/fish/vendor_completions.d/nsntrace.fish",
        "share/doc/nsntrace/README.md",
        "share/doc/nsntrace/SECURITY.md",
        "share/doc/nsntrace/CHANGELOG.md",
        "share/doc/nsntrace/LICENSE-MIT",
        "share/doc/nsntrace/LICENSE-APACHE",
        "share/doc/nsntrace/libraries.txt",
    ] {
        ensure!(folder.join(file).is_file(), "no {file}");
    }
    traces_a_download(lab, &folder.join("bin/nsntrace").to_string_lossy())
}

fn checksums_are_right(lab: &Lab) -> Result<()> {
    let sums = built("SHA256SUMS")?;
    let folder = sums.parent().context("a file without a folder")?.to_string_lossy();
    let told = shell(lab, &format!("cd '{folder}' && sha256sum --check --strict SHA256SUMS"))?;
    ensure!(told.lines().count() == 2 && told.lines().all(|line| line.ends_with(": OK")), "{told}");
    Ok(())
}
