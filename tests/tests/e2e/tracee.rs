//! The program: what it gets from its caller, what its caller gets from it, and when it has ended.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{Done, Lab};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    exit_status,
    status_of_a_signal,
    no_such_program,
    no_executable,
    options_end_at_the_program,
    streams_are_its_own,
    signals_are_the_defaults,
    no_descriptor_leaks,
    limits_are_those_of_the_caller,
    working_directory_and_environment,
    other_user,
    other_user_by_number,
    other_user_has_the_network,
    unknown_user,
    programs_of_others,
    daemon_is_traced_to_its_end,
    grandchildren_in_other_sessions,
];

fn exit_status(lab: &Lab) -> Result<()> {
    for status in ["0", "1", "7", "255"] {
        lab.nsntrace(["sh", "-c", &format!("exit {status}")])?.run()?.exited(status.parse()?)?;
    }
    Ok(())
}

fn status_of_a_signal(lab: &Lab) -> Result<()> {
    for signal in [Signal::SIGHUP, Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGTERM] {
        let number = signal as i32;
        let done = lab.nsntrace(["sh", "-c", &format!("ulimit -c 0; kill -{number} $$")])?.run()?;
        done.exited(128 + number)?.captured()?;
    }
    Ok(())
}

fn no_such_program(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    for program in ["nosuchprogram", "./nosuchprogram", "/nosuchprogram"] {
        let done = lab.nsntrace([program])?.run()?;
        assert_eq!(done.status.code(), Some(1));
        let line = said_by_nsntrace(&done)?;
        assert!(line.contains("nosuchprogram"), "{line}");
    }
    lab.assert_clean(&before)
}

fn no_executable(lab: &Lab) -> Result<()> {
    let done = lab.nsntrace(["/etc/passwd"])?.run()?;
    assert_eq!(done.status.code(), Some(1));
    let line = said_by_nsntrace(&done)?;
    assert!(line.contains("/etc/passwd"), "{line}");
    Ok(())
}

/// The one line of nsntrace's own; the words of a trace may be around it.
fn said_by_nsntrace(done: &Done) -> Result<String> {
    let lines: Vec<_> = done.stderr.lines().filter(|line| line.starts_with("nsntrace: ")).collect();
    ensure!(lines.len() == 1, "not one line of nsntrace's:\n{}", done.stderr);
    Ok(lines.concat())
}

fn options_end_at_the_program(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let done = lab.nsntrace(["-o", "x.pcap", "curl", "-s", "-o", "page", &web.url])?.run()?.exited(0)?;
    assert!(fs::read(done.dir.join("page"))? == web.body);
    assert!(done.trace_at("x.pcap").count()? > 10);
    let done = lab.nsntrace(["-q", "--", "echo", "--help", "-V", "--"])?.run()?.exited(0)?;
    assert_eq!(done.text(), "--help -V --\n");
    Ok(())
}

fn streams_are_its_own(lab: &Lab) -> Result<()> {
    let text: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let done = lab.nsntrace(["-q", "cat"])?.input(&text)?.run()?.exited(0)?;
    assert!(done.stdout == text, "{} of {} bytes came through", done.stdout.len(), text.len());
    let done = lab.nsntrace(["-q", "sh", "-c", "echo out; echo err >&2"])?.run()?.exited(0)?;
    assert_eq!((done.text().as_str(), done.stderr.as_str()), ("out\n", "err\n"));
    Ok(())
}

fn signals_are_the_defaults(lab: &Lab) -> Result<()> {
    let status = lab.nsntrace(["-q", "cat", "/proc/self/status"])?.output()?;
    // 32 and 33 are glibc's own: its posix_spawn, by which the tests may have been started, ignores them.
    let glibc = 0b11 << 31;
    for signals in ["SigBlk:\t", "SigIgn:\t"] {
        let set = status.lines().find_map(|line| line.strip_prefix(signals)).context("no set of signals")?;
        assert_eq!(u64::from_str_radix(set, 16)? & !glibc, 0, "{signals}{set}");
    }
    Ok(())
}

fn no_descriptor_leaks(lab: &Lab) -> Result<()> {
    // The fourth is ls's own, for the folder that it lists.
    let done = lab.nsntrace(["-q", "ls", "/proc/self/fd"])?.run()?.exited(0)?;
    assert_eq!(done.text(), "0\n1\n2\n3\n");
    Ok(())
}

fn limits_are_those_of_the_caller(lab: &Lab) -> Result<()> {
    let limits = ["prlimit", "--memlock=65536", "--nofile=500:1000", "--core=0", "--nproc=4000:5000"];
    let show = ["cat", "/proc/self/limits"];
    let untraced = lab.host(limits.into_iter().chain(show))?.output()?;
    let traced = lab.nsntrace_by(limits, ["-q"].into_iter().chain(show))?.output()?;
    assert_eq!(traced, untraced);
    Ok(())
}

fn working_directory_and_environment(lab: &Lab) -> Result<()> {
    let job = lab.nsntrace(["-q", "sh", "-c", "pwd; env | sort"])?.env("A_VARIABLE", "of the caller");
    let dir = job.dir().display().to_string();
    let text = job.output()?;
    assert_eq!(text.lines().next(), Some(dir.as_str()));
    for variable in ["A_VARIABLE=of the caller", "HOME=/root", "USER=root"] {
        assert!(text.lines().any(|line| line == variable), "{variable} is missing in:\n{text}");
    }
    Ok(())
}

const WHO: &str =
    "id -u; id -g; id -G; echo $HOME $USER $LOGNAME $SHELL; grep -E '^(CapEff|Groups)' /proc/self/status";

/// A user of the fake host alone, with two groups besides their own.
fn add_user(lab: &Lab) -> Result<()> {
    for (file, line) in [("passwd", "tracee:x:4242:4243::/home/tracee:/bin/dash"), ("group", "own:x:4243:")] {
        let path = format!("/etc/{file}");
        let copy = lab.dir().join(file);
        let more = if file == "group" { "\nnet:x:4244:tracee\nlog:x:4245:nobody,tracee" } else { "" };
        fs::write(&copy, format!("{}{line}{more}\n", fs::read_to_string(&path)?))?;
        lab.host(["mount".as_ref(), "--bind".as_ref(), copy.as_os_str(), path.as_ref()])?.output()?;
    }
    Ok(())
}

fn other_user(lab: &Lab) -> Result<()> {
    add_user(lab)?;
    let done = lab.nsntrace(["-q", "-u", "tracee", "sh", "-c", WHO])?.run()?.exited(0)?;
    let text = done.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..4], ["4242", "4243", "4243 4244 4245", "/home/tracee tracee tracee /bin/dash"]);
    assert!(lines[4].ends_with("4244 4245 ") || lines[4].ends_with("4243 4244 4245 "), "{}", lines[4]);
    assert_eq!(lines[5], "CapEff:\t0000000000000000");
    assert!(done.trace().path().exists(), "the trace is nsntrace's own to write");
    Ok(())
}

fn other_user_by_number(lab: &Lab) -> Result<()> {
    add_user(lab)?;
    let by_name = lab.nsntrace(["-q", "-u", "tracee", "sh", "-c", WHO])?.output()?;
    let by_number = lab.nsntrace(["-q", "--user", "4242", "sh", "-c", WHO])?.output()?;
    assert_eq!(by_number, by_name);
    Ok(())
}

fn other_user_has_the_network(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let done = lab.nsntrace(["-u", "nobody", "curl", "-s", &web.url])?.run()?.exited(0)?;
    assert!(done.stdout == web.body);
    assert_eq!(done.captured()?, done.trace().count()?);
    Ok(())
}

fn unknown_user(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["-u", "nosuchuser", "touch", "ran"])?.run()?;
    let line = done.complaint()?;
    assert!(line.contains("nosuchuser"), "{line}");
    assert!(!done.dir.join("ran").exists() && !done.trace().path().exists());
    lab.assert_clean(&before)
}

/// As execvp does, what the user may not execute is passed over.
fn programs_of_others(lab: &Lab) -> Result<()> {
    let script = "for place in others own; do
        mkdir /run/$place
        printf '#!/bin/sh\necho %s\n' $place >/run/$place/tool
        chmod 755 /run/$place/tool
    done
    chmod 700 /run/others";
    lab.sh(script)?;
    let path = "/run/others:/run/own:/usr/sbin:/usr/bin:/sbin:/bin";
    for (user, place) in [("root", "others"), ("nobody", "own")] {
        let done = lab.nsntrace(["-q", "-u", user, "tool"])?.env("PATH", path).output()?;
        assert_eq!(done.trim(), place, "{user}");
    }
    let line = lab.nsntrace(["-u", "nobody", "/run/others/tool"])?.run()?.complaint()?.to_owned();
    ensure!(line.contains("Permission denied") && line.ends_with("for user nobody"), "{line}");
    Ok(())
}

/// Leaves a daemon behind, which downloads when the program is gone: then the pipe that both hold has its end.
const DAEMON: &str = "
import os, subprocess, sys
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(write)
        os.read(read, 1)
        subprocess.run(['curl', '-s', '-o', 'page', sys.argv[1]])
    os._exit(0)
os.wait()
sys.exit(5)
";

pub fn daemon_is_traced_to_its_end(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["python3", "-c", DAEMON, &web.url])?.run()?.exited(5)?;
    assert!(fs::read(done.dir.join("page"))? == web.body, "the daemon's download failed");
    let trace = done.trace();
    assert!(trace.http_bodies()?.get("data.bin") == Some(&web.body), "the download is not in the trace");
    assert!(trace.ends()?.contains("80"), "the server's end is not in the trace");
    assert_eq!(done.captured()?, trace.count()?);
    lab.assert_clean(&before)
}

fn grandchildren_in_other_sessions(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let program =
        r#"for n in 1 2 3; do setsid sh -c 'sleep 0.5; curl -s -o "$1" "$0"' "$1" "$n" & done; exit 6"#;
    let done = lab.nsntrace(["sh", "-c", program, "sh", &web.url])?.run()?.exited(6)?;
    assert_eq!(done.trace().count_of("http.request")?, 3);
    for page in ["1", "2", "3"] {
        assert!(fs::read(done.dir.join(page))? == web.body, "{page} is not whole");
    }
    Ok(())
}
