//! Programs of every kind: full-screen, setuid, of another user's session, and those that leave what they were put into.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{Done, Lab, Running, SERVER_ADDRESS, SOON};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    window_size,
    full_screen_program,
    setuid_program,
    su,
    session_of_the_user,
    no_session,
    unprivileged_ping,
    own_network_namespace,
    own_mount_namespace,
    own_cgroup_inside,
    other_cgroup,
    deaf_in_another_cgroup,
    daemon_in_another_cgroup,
    deaf_daemon_in_another_cgroup,
    five_hundred_short_processes,
    few_descriptors,
    few_descriptors_that_may_be_more,
];

fn window_size(lab: &Lab) -> Result<()> {
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut terminal = lab.nsntrace(["sh", "-c", script])?.spawn_on_terminal()?;
    terminal.shows("ready")?;
    for (rows, columns) in [(30, 100), (50, 132), (24, 80)] {
        terminal.resize(rows, columns)?;
        terminal.shows(&format!("{rows} {columns}"))?;
    }
    terminal.process.signal(Signal::SIGTERM)?;
    terminal.shows("Finished capturing 0 packets.")?;
    terminal.process.wait()?.exited(128 + Signal::SIGTERM as i32).map(drop)
}

fn full_screen_program(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let mut terminal = lab.nsntrace(["busybox", "vi", "text"])?.env("TERM", "xterm").spawn_on_terminal()?;
    terminal.resize(24, 80)?;
    // It marks the lines after the end of the text.
    terminal.shows("~")?;
    terminal.types("iwords")?;
    terminal.shows("words")?;
    terminal.types("\x1b")?;
    // What follows an Escape at once is taken for the rest of a key.
    terminal.shows("[Modified]")?;
    terminal.types(":wq\r")?;
    terminal.shows("Finished capturing 0 packets.")?;
    let done = terminal.process.wait()?.exited(0)?;
    assert_eq!(fs::read_to_string(done.dir.join("text"))?, "words\n");
    lab.assert_clean(&before)
}

/// The fake host's /run allows it, whatever the folder for temporary files is mounted with.
fn setuid_program(lab: &Lab) -> Result<()> {
    lab.sh("install -m 4755 \"$(readlink -f /usr/bin/id)\" /run/id")?;
    let done = lab.nsntrace(["-q", "-u", "nobody", "/run/id", "-u"])?.run()?.exited(0)?;
    assert_eq!(done.text(), "0\n");
    let flags = lab.nsntrace(["-q", "-u", "nobody", "grep", "NoNewPrivs", "/proc/self/status"])?.output()?;
    assert_eq!(flags, "NoNewPrivs:\t0\n");
    Ok(())
}

/// As it is without a trace.
fn su(lab: &Lab) -> Result<()> {
    let words = ["su", "-s", "/bin/sh", "nobody", "-c", "id -u; exit 7"];
    let untraced = lab.host(words)?.run()?;
    let traced = lab.nsntrace(["-q"].into_iter().chain(words))?.run()?;
    assert_eq!((traced.status, traced.text()), (untraced.status, untraced.text()));
    Ok(())
}

const SESSION: &str = "echo $XDG_RUNTIME_DIR; echo $DBUS_SESSION_BUS_ADDRESS";

/// What the program finds, where root has a session of his own.
fn session(lab: &Lab, options: &[&str]) -> Result<Vec<String>> {
    let words = [&["-q"], options, &["sh", "-c", SESSION]].concat();
    let job = lab.nsntrace(words)?.env("XDG_RUNTIME_DIR", "/run/user/0");
    let text = job.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/0/bus").output()?;
    Ok(text.lines().map(String::from).collect())
}

fn session_of_the_user(lab: &Lab) -> Result<()> {
    let folders = "mkdir -p /run/user/0 /run/user/65534; touch /run/user/0/bus /run/user/65534/bus";
    lab.sh(folders)?;
    assert_eq!(session(lab, &["-u", "nobody"])?, ["/run/user/65534", "unix:path=/run/user/65534/bus"]);
    assert_eq!(session(lab, &[])?, ["/run/user/0", "unix:path=/run/user/0/bus"]);
    lab.host(["rm", "/run/user/65534/bus"])?.output()?;
    assert_eq!(session(lab, &["-u", "nobody"])?, ["/run/user/65534", ""]);
    Ok(())
}

fn no_session(lab: &Lab) -> Result<()> {
    lab.sh("mkdir -p /run/user/0; touch /run/user/0/bus")?;
    assert_eq!(session(lab, &["-u", "nobody"])?, ["", ""]);
    Ok(())
}

/// Sends an echo request as those may who have no raw sockets, and prints the type of the answer; or the error's name.
const PING: &str = "
import socket, struct, sys
try:
    ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    ping.settimeout(20)
    ping.sendto(struct.pack('!BBHHH', 8, 0, 0, 0, 1) + b'ping', (sys.argv[1], 0))
    print(ping.recv(100)[0])
except OSError as error:
    print(type(error).__name__)
";

/// Where the host allows it, and only there.
fn unprivileged_ping(lab: &Lab) -> Result<()> {
    for (range, answer, packets) in [("0 2147483647", "0\n", 2), ("1 0", "PermissionError\n", 0)] {
        let set = format!("echo '{range}' > /proc/sys/net/ipv4/ping_group_range");
        lab.sh(&set)?;
        let words = ["-u", "nobody", "python3", "-c", PING, SERVER_ADDRESS];
        let done = lab.nsntrace(words)?.run()?.exited(0)?;
        assert_eq!(done.text(), answer, "with the range {range}");
        assert_eq!(done.trace().count_of("icmp")?, packets, "with the range {range}");
    }
    Ok(())
}

const ABSENT: &str = "is in another network namespace";

/// It is said once, however many do it.
fn own_network_namespace(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let script = "unshare --net sleep 1000 & unshare --net sh -c 'echo ready; read line; exit 5'";
    let mut run =
        lab.nsntrace(["sh", "-c", &format!("{script}; status=$?; kill $!; exit $status")])?.told().spawn()?;
    run.says("ready")?;
    run.complains(ABSENT)?;
    drop(run.stdin_pipe()?);
    let done = run.wait()?.exited(5)?;
    assert_eq!(done.stderr.matches(ABSENT).count(), 1, "{}", done.stderr);
    lab.assert_clean(&before)
}

fn own_mount_namespace(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let script = r#"mkdir place; busybox mount -t tmpfs tmpfs place; curl -s -o place/page "$0" && cp place/page page"#;
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, &web.url];
    let done = lab.nsntrace(words)?.run()?.exited(0)?;
    assert!(fs::read(done.dir.join("page"))? == web.body);
    assert_eq!(done.captured()?, done.trace().count()?);
    assert!(!done.stderr.contains(ABSENT), "{}", done.stderr);
    lab.assert_clean(&before)
}

/// Moves the shell to the cgroup `$0`.
const MOVE: &str = "echo 0 > \"$0\"/cgroup.procs";

/// A cgroup of the program's own making, below the one that it was put into.
fn own_cgroup_inside(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let parent = lab.tracer_cgroup().path().display().to_string();
    let script = format!(
        r#"set -- "$0"/nsntrace-*/ "$1"; mkdir "$1"/own "$1"/own/deep; echo 0 > "$1"/own/deep/cgroup.procs; {}"#,
        r#"curl -s -o page "$2"; exit 4"#
    );
    let done = lab.nsntrace(["sh", "-c", &script, &parent, &web.url])?.run()?.exited(4)?;
    assert!(fs::read(done.dir.join("page"))? == web.body);
    lab.assert_clean(&before)
}

/// Another cgroup of the host's: the program is traced to its end.
fn other_cgroup(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let other = lab.tracer_cgroup().path().display().to_string();
    let script = format!(r#"{MOVE}; curl -s -o page "$1"; exit 4"#);
    let done = lab.nsntrace(["sh", "-c", &script, &other, &web.url])?.run()?.exited(4)?;
    assert!(fs::read(done.dir.join("page"))? == web.body);
    assert!(
        done.trace().http_bodies()?.get("data.bin") == Some(&web.body),
        "the download is not in the trace"
    );
    lab.assert_clean(&before)
}

/// A run of a script that goes to another cgroup.
fn moved(lab: &Lab, script: &str) -> Result<Running> {
    let other = lab.tracer_cgroup().path().display().to_string();
    let mut run = lab.nsntrace(["sh", "-c", &format!("{MOVE}; {script}"), &other])?.told().spawn()?;
    run.says("ready")?;
    Ok(run)
}

/// The end after a TERM, within the five seconds that are given and some for a busy machine.
fn ended(run: Running) -> Result<Done> {
    let began = Instant::now();
    run.signal(Signal::SIGTERM)?;
    let done = run.wait()?;
    ensure!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    Ok(done)
}

fn deaf_in_another_cgroup(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = moved(lab, "trap '' TERM; echo ready; while :; do sleep 0.1; done")?;
    ended(run)?.exited(128 + Signal::SIGKILL as i32)?;
    lab.assert_clean(&before)
}

/// It is of the tree still: the trace goes on, and who waits for its end is told.
fn daemon_in_another_cgroup(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    // A background job's stdin is empty but for this.
    let script = r#"(read line; curl -s -o page "$1") <&3 & echo ready; exit 4"#;
    let script = format!("exec 3<&0; {MOVE}; {script}");
    let other = lab.tracer_cgroup().path().display().to_string();
    let mut run = lab.nsntrace(["sh", "-c", &script, &other, &web.url])?.told().spawn()?;
    run.complains("has ended, and the trace goes on with what it started: sh (")?;
    drop(run.stdin_pipe()?);
    let done = run.wait()?.exited(4)?;
    assert!(fs::read(done.dir.join("page"))? == web.body, "the daemon's download failed");
    assert!(
        done.trace().http_bodies()?.get("data.bin") == Some(&web.body),
        "the download is not in the trace"
    );
    lab.assert_clean(&before)
}

/// A chain of two, of whom the second becomes ours only when the first is killed.
fn deaf_daemon_in_another_cgroup(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let deaf = "trap '' TERM; (while :; do sleep 0.1; done) & while :; do sleep 0.1; done";
    let run = moved(lab, &format!("({deaf}) & echo ready; exit 4"))?;
    ended(run)?.exited(4)?;
    lab.assert_clean(&before)
}

/// All of them are waited for, those too whose parents do not, and the last of them is the end.
fn five_hundred_short_processes(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let script = "i=0; while [ $i -lt 250 ]; do (sleep 0.01 &) ; i=$((i + 1)); done; ps -o state= --ppid \"$PPID\" > states; exit 6";
    let done = lab.nsntrace(["sh", "-c", script])?.limit(Duration::from_secs(60)).run()?.exited(6)?;
    let states = fs::read_to_string(done.dir.join("states")).context("no states")?;
    let zombies = states.lines().filter(|state| state.starts_with('Z')).count();
    // Some have just ended.
    ensure!(zombies < 100, "{zombies} zombies are left to the tracer");
    lab.assert_clean(&before)
}

/// The one line of a run that may not have enough, where root may not have more either.
fn few_descriptors(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    for limit in ["--nofile=5", "--nofile=20", "--nofile=30:40"] {
        let starter = ["setpriv", "--bounding-set=-sys_resource", "prlimit", limit];
        let done = lab.nsntrace_by(starter, ["touch", "ran"])?.run()?;
        // With five, the program that sets the limit may not get as far.
        if limit != "--nofile=5" {
            let line = done.complaint()?;
            assert!(line.contains("open files") && line.contains("ulimit -n"), "{line}");
        }
        assert!(!done.status.success() && !done.dir.join("ran").exists(), "{limit}");
        lab.assert_clean(&before)?;
    }
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    lab.assert_clean(&before)
}

/// The limit is the program's again.
fn few_descriptors_that_may_be_more(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let limit = ["prlimit", "--nofile=12:1000"];
    let script = r#"ulimit -Sn; ulimit -Hn; exec curl -s -o page "$0""#;
    let done = lab.nsntrace_by(limit, ["sh", "-c", script, &web.url])?.run()?.exited(0)?;
    assert_eq!(done.text(), "12\n1000\n");
    assert!(fs::read(done.dir.join("page"))? == web.body);
    lab.assert_clean(&before)
}
