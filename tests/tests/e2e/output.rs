//! Where the trace goes: into what file, whose, and what if it cannot.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use nsntrace_tests::{Job, Lab, nsntrace_binary};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    quiet,
    outfile_names,
    older_trace_is_replaced,
    older_trace_outlives_a_failure,
    stdout_is_the_trace_alone,
    readers_of_stdout,
    reader_that_goes_away,
    no_such_folder,
    folder_in_place_of_a_file,
    disk_full,
    disk_full_on_stdout,
    file_size_limit,
    device_stdout_is_stdout,
    stdout_that_does_not_wait,
    groups_of_the_invoking_user,
    belongs_to_the_invoking_user,
    invoking_user_may_not_write,
];

/// A user with no rights here: what SUDO_UID and SUDO_GID say.
const USER: u32 = 65_534;

fn quiet(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let done = lab.nsntrace(["-q", "curl", "-s", "-o", "page", &web.url])?.run()?.exited(0)?;
    assert_eq!(done.stderr, "");
    assert!(done.trace().count()? > 10);
    Ok(())
}

fn outfile_names(lab: &Lab) -> Result<()> {
    for option in ["-o", "--outfile", "-w"] {
        let done = lab.nsntrace([option, "x.pcap", "true"])?.run()?.exited(0)?;
        assert_eq!(done.trace_at("x.pcap").count()?, 0);
        assert!(!done.trace().path().exists(), "{option}: a file of the default name");
    }
    Ok(())
}

fn older_trace_is_replaced(lab: &Lab) -> Result<()> {
    let job = lab.nsntrace(["true"])?;
    fs::write(job.dir().join("nsntrace.pcap"), vec![0; 100_000])?;
    assert_eq!(job.run()?.exited(0)?.trace().count()?, 0);
    Ok(())
}

/// Whether the failure comes from a check or from the middle of the set-up.
fn older_trace_outlives_a_failure(lab: &Lab) -> Result<()> {
    let fails = |job: Job| -> Result<()> {
        let file = job.dir().join("nsntrace.pcap");
        fs::write(&file, "old")?;
        job.run()?.complaint()?;
        ensure!(fs::read_to_string(&file)? == "old", "the older trace is gone");
        Ok(())
    };
    fails(lab.nsntrace(["-d", "nosuch0", "true"])?)?;
    for call in ["setns", "bpf"] {
        let fail = [env!("CARGO_BIN_EXE_fail"), call, "", "1+", "1", "/dev/null"];
        fails(lab.nsntrace_by(fail, ["true"])?)?;
    }
    Ok(())
}

fn stdout_is_the_trace_alone(lab: &Lab) -> Result<()> {
    let done = lab.nsntrace(["-o", "-", "echo", "a word of the program"])?.run()?.exited(0)?;
    assert_eq!(done.stdout.len(), 24, "a header of 24 bytes and no packet");
    assert_eq!(u32::from_ne_bytes(done.stdout[..4].try_into()?), 0xa1b2_3c4d);
    done.line_with("a word of the program")?;
    done.line_with("Finished capturing 0 packets.")?;
    Ok(())
}

fn readers_of_stdout(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    for reader in ["tshark -n -r -", "tcpdump -Z root -n -r -"] {
        let starter = ["sh", "-c", &format!(r#""$@" | {reader}"#), "sh"];
        let done = lab.nsntrace_by(starter, ["-o", "-", "curl", "-s", "-o", "page", &web.url])?.run()?;
        let done = done.exited(0)?;
        let lines = done.text().lines().count();
        assert_eq!(u64::try_from(lines)?, done.captured()?, "lines of {reader}\n{}", done.stderr);
        assert!(lines > 10);
    }
    Ok(())
}

fn reader_that_goes_away(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let program = r#"read line; curl -s -o page "$1" || exit 99; read line; exit 4"#;
    let mut run = lab.nsntrace(["-o", "-", "sh", "-c", program, "sh", &web.url])?.told().piped().spawn()?;
    let mut header = [0; 24];
    let mut reader = run.stdout_pipe()?;
    reader.read_exact(&mut header)?;
    drop(reader);
    run.stdin_pipe()?.write_all(b"\n\n")?;
    let done = run.wait()?.exited(4)?;
    assert!(fs::read(done.dir.join("page"))? == web.body, "the program was harmed");
    Ok(())
}

fn no_such_folder(lab: &Lab) -> Result<()> {
    refused(lab, "nosuch/x.pcap", "nosuch")
}

fn folder_in_place_of_a_file(lab: &Lab) -> Result<()> {
    refused(lab, "/proc", "/proc")
}

/// `-o FILE` is refused before anything is changed, in one line with `word` in it.
fn refused(lab: &Lab, file: &str, word: &str) -> Result<()> {
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["-o", file, "touch", "ran"])?.run()?;
    let line = done.complaint()?;
    assert!(line.contains(word), "{line}");
    assert!(!done.dir.join("ran").exists(), "the program was run");
    lab.assert_clean(&before)
}

fn disk_full(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let disk = lab.small_disk("300k")?;
    let before = lab.snapshot()?;
    let file = format!("{disk}/x.pcap");
    let program = r#"curl -s -o page "$1" && exit 5"#;
    let job = lab.nsntrace(["-o", &file, "sh", "-c", program, "sh", &web.url])?;
    let done = job.limit(Duration::from_secs(20)).run()?.exited(5)?;
    assert!(fs::read(done.dir.join("page"))? == web.body, "the program was harmed");
    let line = done.line_with("No space left")?;
    assert!(line.starts_with("nsntrace: ") && line.contains("x.pcap"), "{line}");
    let copy = lab.host(["cp", &file, "."])?.run()?.exited(0)?.trace_at("x.pcap");
    assert!(copy.count()? > 0);
    assert_eq!(copy.count()?, done.captured()?);
    lab.assert_clean(&before)
}

/// Whole packets only, behind what was in the file.
fn disk_full_on_stdout(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let disk = lab.small_disk("300k")?;
    let binary = nsntrace_binary()?.display().to_string();
    let script = r#""$0" -o - curl -s -o page "$1" > "$2/x.pcap""#;
    let done = lab.tracer(["sh", "-c", script, &binary, &web.url, &disk])?.run()?.exited(0)?;
    assert!(done.stderr.contains("No space left"), "{}", done.stderr);
    let copy = lab.host(["cp", &format!("{disk}/x.pcap"), "."])?.run()?.exited(0)?.trace_at("x.pcap");
    assert_eq!(copy.count()?, done.captured()?);
    Ok(())
}

fn file_size_limit(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let program = ["curl", "-s", "-o", "/dev/null", &web.url];
    let done = lab.nsntrace_by(["prlimit", "--fsize=500000"], program)?.run()?.exited(0)?;
    assert!(done.line_with("File too large")?.starts_with("nsntrace: "), "{}", done.stderr);
    assert_eq!(done.trace().count()?, done.captured()?);
    lab.assert_clean(&before)
}

/// The program's words would stand between the packets.
fn device_stdout_is_stdout(lab: &Lab) -> Result<()> {
    let binary = nsntrace_binary()?.display().to_string();
    let script = r#""$0" -o /dev/stdout echo words | cat > x.pcap"#;
    let done = lab.tracer(["sh", "-c", script, &binary])?.run()?.exited(0)?;
    assert!(done.stderr.contains("words"), "{}", done.stderr);
    assert_eq!(done.trace_at("x.pcap").count()?, 0);
    Ok(())
}

/// Somebody has made the pipe non-blocking, and the reader takes its time.
fn stdout_that_does_not_wait(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let script = r#"
import os, subprocess, sys
read, write = os.pipe()
os.set_blocking(write, False)
run = subprocess.Popen([sys.argv[1], "-o", "-", "curl", "-s", "-o", "page", sys.argv[2]], stdout=write)
os.close(write)
run.poll()
with open("x.pcap", "wb") as copy:
    while block := os.read(read, 4096):
        copy.write(block)
sys.exit(run.wait())
"#;
    let binary = nsntrace_binary()?.display().to_string();
    let done = lab.tracer(["python3", "-c", script, &binary, &web.url])?.run()?.exited(0)?;
    let trace = done.trace_at("x.pcap");
    assert_eq!(trace.count()?, done.captured()?);
    let bodies = trace.http_bodies()?;
    assert!(bodies.get("data.bin") == Some(&web.body), "not all of it is in the trace");
    Ok(())
}

/// Whoever typed sudo may write where a group of theirs may.
fn groups_of_the_invoking_user(lab: &Lab) -> Result<()> {
    const GROUP: u32 = 4242;
    let users = format!("lab:x:{USER}:{USER}::/nonexistent:/bin/sh\n");
    let groups = format!("lab:x:{USER}:\nteam:x:{GROUP}:lab\n");
    for (name, text) in [("passwd", users), ("group", groups)] {
        let own = lab.dir().join(name);
        fs::write(&own, text)?;
        lab.host(["mount", "--bind", &own.display().to_string(), &format!("/etc/{name}")])?.output()?;
    }
    let job = as_if_by_sudo(lab.nsntrace(["true"])?);
    chown(job.dir(), Some(0), Some(GROUP))?;
    fs::set_permissions(job.dir(), fs::Permissions::from_mode(0o2770))?;
    let file = fs::metadata(job.run()?.exited(0)?.trace().path())?;
    assert_eq!((file.uid(), file.gid()), (USER, GROUP));
    Ok(())
}

fn belongs_to_the_invoking_user(lab: &Lab) -> Result<()> {
    let job = as_if_by_sudo(lab.nsntrace(["true"])?);
    chown(job.dir(), Some(USER), Some(USER))?;
    let file = fs::metadata(job.run()?.exited(0)?.trace().path())?;
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (USER, USER, 0o600));
    // Without sudo it is root's.
    let file = fs::metadata(lab.nsntrace(["true"])?.run()?.exited(0)?.trace().path())?;
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (0, 0, 0o600));
    Ok(())
}

/// Root could: the user who typed sudo does not get what is not theirs.
fn invoking_user_may_not_write(lab: &Lab) -> Result<()> {
    let job = as_if_by_sudo(lab.nsntrace(["true"])?);
    denied(job.run()?.complaint()?);

    let job = as_if_by_sudo(lab.nsntrace(["true"])?);
    chown(job.dir(), Some(USER), Some(USER))?;
    let precious = lab.dir().join("precious");
    fs::write(&precious, "precious")?;
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600))?;
    std::os::unix::fs::symlink(&precious, job.dir().join("nsntrace.pcap"))?;
    denied(job.run()?.complaint()?);
    assert_eq!(fs::read_to_string(Path::new(&precious))?, "precious");
    Ok(())
}

fn denied(line: &str) {
    assert!(line.contains("ermission denied"), "{line}");
}

fn as_if_by_sudo(job: Job) -> Job {
    job.env("SUDO_UID", &USER.to_string()).env("SUDO_GID", &USER.to_string()).env("SUDO_USER", "nobody")
}
