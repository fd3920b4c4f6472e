//! Wireshark's way to capture: tshark lists the interfaces, and captures from them.

use std::{
    fs,
    os::unix::fs::{chown, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{Done, Job, Lab, Pcapng, Running, SERVER_ADDRESS, SOON, Trace, nsntrace_binary, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    both_are_listed,
    options_are_a_form,
    program_is_traced,
    what_the_program_says_is_no_error,
    cgroup_is_traced,
    stop_leaves_the_host_as_it_was,
    ends_with_tshark,
    mistakes_are_told,
    filters_are_checked,
    pipe_is_nothing_else,
    without_root_it_says_what_helps,
    sudo_makes_the_trace,
    sudo_passes_a_stop_on,
];

/// Who is not root.
const NOBODY: u32 = 65534;
const AS_NOBODY: [&str; 5] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];

/// A home in which Wireshark finds the binary, as a link of another name.
fn home(lab: &Lab, binary: &Path) -> Result<String> {
    let home = lab.dir().join("home");
    let folder = home.join(".config/wireshark/extcap");
    if !folder.exists() {
        fs::create_dir_all(&folder)?;
        symlink(binary, folder.join("a-link"))?;
    }
    Ok(home.to_str().context("a path")?.to_owned())
}

fn tshark(lab: &Lab, options: &[&str]) -> Result<Job> {
    let words = [&["tshark"], options].concat();
    Ok(lab.tracer(words)?.env("HOME", &home(lab, &nsntrace_binary()?)?))
}

/// A capture of a program into `trace.pcapng` in the folder of the job.
fn capture(lab: &Lab, program: &str, options: &[&str]) -> Result<Job> {
    let program = format!("extcap.nsntrace.program:{program}");
    let words = [&["-i", "nsntrace", "-o", &program, "-w", "trace.pcapng"], options].concat();
    tshark(lab, &words)
}

/// What the interface itself says to a call.
fn call(lab: &Lab, interface: &str, options: &[&str]) -> Result<Done> {
    lab.nsntrace([&["--extcap-interface", interface], options].concat())?.run()
}

/// What tshark would show a user as an error of the interface.
fn errors(done: &Done) -> Option<&str> {
    let error = done.stderr.split_once("Error by extcap pipe: ")?.1;
    error.split("\n\n").next()
}

/// Whether both interfaces are in what `tshark -D` says.
pub fn are_listed(list: &str) -> bool {
    ["nsntrace (nsntrace: trace a program)", "nsntrace-cgroup (nsntrace: trace a cgroup)"]
        .iter()
        .all(|interface| list.lines().any(|line| line.ends_with(interface)))
}

fn both_are_listed(lab: &Lab) -> Result<()> {
    let list = tshark(lab, &["-D"])?.output()?;
    ensure!(are_listed(&list), "{list}");
    let link_types = |interface| tshark(lab, &["-L", "-i", interface])?.output();
    ensure!(link_types("nsntrace")?.contains("EN10MB (Ethernet)"));
    ensure!(link_types("nsntrace-cgroup")?.contains("RAW (Raw IP)"));
    Ok(())
}

fn options_are_a_form(lab: &Lab) -> Result<()> {
    let preferences = tshark(lab, &["-G", "currentprefs"])?.output()?;
    for option in ["program", "user", "tlskeys", "device", "publish", "process", "snaplen", "buffersize"] {
        let line = format!("extcap.nsntrace.{option}:");
        ensure!(preferences.lines().any(|other| other.contains(&line)), "no {line} in {preferences}");
    }
    let cgroup = lab.cgroup("of-the-list")?;
    let sleeper = lab.host_in(&cgroup, ["sleep", "1000"])?.spawn()?;
    let value = format!("{{value={}}}", cgroup.path().display());
    ensure!(call(lab, "nsntrace-cgroup", &["--extcap-config"])?.exited(0)?.text().contains(&value));
    // Anew, when somebody looks again: only what there is to choose from, and only with somebody in there.
    drop(sleeper);
    until("an empty cgroup", SOON, || Ok((!cgroup.is_populated()?).then_some(())))?;
    let options = ["--extcap-config", "--extcap-reload-option", "--cgroup", "--snaplen", "96"];
    let again = call(lab, "nsntrace-cgroup", &options)?.exited(0)?.text();
    ensure!(
        again.lines().all(|line| line.starts_with("value {arg=0}")) && !again.contains(&value),
        "{again}"
    );
    Ok(())
}

fn program_is_traced(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let program = format!("sh -c 'curl -s {} | cat >page'", web.url);
    let done = capture(lab, &program, &["-f", "tcp port 80"])?.run()?.exited(0)?;
    ensure!(errors(&done).is_none(), "{}", done.stderr);
    lab.assert_clean(&before)?;
    let trace = done.trace_at("trace.pcapng");
    assert_eq!(trace.http_bodies()?.get("data.bin").map(Vec::as_slice), Some(&web.body[..]));
    assert_eq!(fs::read(done.dir.join("page"))?, web.body);
    let count = trace.count()?;
    // The whole way of each packet: none but those of the filter, and each with its owner, which only a pcapng can tell.
    assert_eq!(trace.count_of("tcp.port == 80")? as u64, count);
    assert_eq!(trace.count_of("frame.comment contains \"curl\"")? as u64, count);
    ensure!(done.stderr.contains(&format!("{count} packets captured")), "{count}: {}", done.stderr);
    assert_eq!(trace.count_of("tcp.flags.syn == 1 && tcp.flags.ack == 0")?, 1);
    Pcapng::read(trace.path()).map(drop)
}

/// Neither a status nor words of the program's are shown as an error, and what it leaves behind is waited for in silence.
fn what_the_program_says_is_no_error(lab: &Lab) -> Result<()> {
    let program = "sh -c 'cat; echo said; echo wrong >&2; sleep 2 & exit 3'";
    let done = capture(lab, program, &[])?.run()?.exited(0)?;
    ensure!(errors(&done).is_none() && !done.stderr.contains("wrong"), "{}", done.stderr);
    Ok(())
}

/// Answers one datagram after the other, from a cgroup.
const ECHO: &str = "
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(0.1)
client.connect((sys.argv[1], 7))
while True:
    client.send(b'a datagram')
    try:
        client.recv(100)
    except OSError:
        pass
";

fn cgroup_is_traced(lab: &Lab) -> Result<()> {
    let _echo = lab.udp_echo(7)?;
    let cgroup = lab.cgroup("talks")?;
    let _talker = lab.host_in(&cgroup, ["python3", "-c", ECHO, SERVER_ADDRESS])?.spawn()?;
    let option = format!("extcap.nsntrace_cgroup.cgroup:{}", cgroup.path().display());
    let words = ["-i", "nsntrace-cgroup", "-o", &option, "-c", "20", "-w", "trace.pcapng"];
    let done = tshark(lab, &words)?.run()?.exited(0)?;
    ensure!(errors(&done).is_none(), "{}", done.stderr);
    let trace = done.trace_at("trace.pcapng");
    assert_eq!(trace.count()?, 20);
    assert_eq!(trace.count_of(&format!("udp.port == 7 && ip.addr == {SERVER_ADDRESS}"))?, 20);
    assert_eq!(trace.info()?.link, "rawip");
    Ok(())
}

/// A program that goes on until it is ended, and packets of it that tshark has shown.
fn pinging(job: Job) -> Result<Running> {
    let mut run = job.spawn()?;
    run.says("Echo (ping) reply")?;
    Ok(run)
}

fn ping(lab: &Lab) -> Result<Job> {
    let program = format!("extcap.nsntrace.program:ping -i 0.2 {SERVER_ADDRESS}");
    tshark(lab, &["-l", "-n", "-i", "nsntrace", "-o", &program])
}

fn stop_leaves_the_host_as_it_was(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = pinging(ping(lab)?)?;
    ensure!(before != lab.snapshot()?);
    run.signal(Signal::SIGINT)?;
    let done = run.wait()?.exited(0)?;
    ensure!(errors(&done).is_none(), "{}", done.stderr);
    lab.assert_clean(&before)
}

/// Nobody is left to send a signal: the trace ends with its reader.
fn ends_with_tshark(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = pinging(ping(lab)?)?;
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    lab.assert_clean(&before)
}

fn mistakes_are_told(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let cases: [(&[&str], &str); 4] = [
        (&["-i", "nsntrace"], "there is no program to trace: "),
        (&["-i", "nsntrace", "-o", "extcap.nsntrace.program:no-such-program"], "no-such-program"),
        (&["-i", "nsntrace", "-o", "extcap.nsntrace.program:true", "-f", "tcp prot 80"], "tcp prot 80"),
        (&["-i", "nsntrace-cgroup", "-o", "extcap.nsntrace_cgroup.named:no-such.service"], "no-such.service"),
    ];
    for (options, part) in cases {
        let done = tshark(lab, options)?.run()?;
        let error = errors(&done).with_context(|| format!("nothing is told: {}", done.stderr))?;
        ensure!(error.starts_with("nsntrace: ") && error.lines().count() == 1, "{error}");
        ensure!(error.contains(part), "{error}");
        lab.assert_clean(&before)?;
    }
    let unknown = call(lab, "eth0", &["--extcap-dlts"])?;
    ensure!(unknown.complaint()?.contains("--extcap-interface eth0"));
    let unknown = call(lab, "nsntrace", &["--extcap-config", "--bogus"])?;
    ensure!(unknown.complaint()?.contains("--bogus"));
    Ok(())
}

/// As Wireshark asks while it is typed: nothing is said of a good one.
fn filters_are_checked(lab: &Lab) -> Result<()> {
    let check = |interface: &str, filter: &str| -> Result<String> {
        Ok(call(lab, interface, &["--extcap-capture-filter", filter])?.exited(0)?.text())
    };
    for filter in ["", "tcp port 80", "inbound"] {
        assert_eq!(check("nsntrace", filter)?, "");
    }
    assert_eq!(check("nsntrace", "ether proto 0x0806")?, "");
    for (interface, filter) in [("nsntrace", "tcp prot"), ("nsntrace-cgroup", "ether host 1:2:3:4:5:6")] {
        let told = check(interface, filter)?;
        ensure!(told.lines().count() == 1 && told.contains(filter), "{told}");
    }
    Ok(())
}

/// What is named for the pipe is not made, and not touched if it is something else.
fn pipe_is_nothing_else(lab: &Lab) -> Result<()> {
    let file = lab.dir().join("file");
    fs::write(&file, "precious")?;
    let other = lab.dir().join("nothing");
    for path in [&file, &other] {
        let options = ["--capture", "--program", "true", "--fifo", path.to_str().context("a path")?];
        ensure!(call(lab, "nsntrace", &options)?.complaint()?.contains("pipe"));
    }
    assert_eq!(fs::read(file)?, b"precious");
    ensure!(!other.exists());
    ensure!(call(lab, "nsntrace", &["--capture", "--program", "true"])?.complaint()?.contains("--fifo"));
    Ok(())
}

/// A binary that everybody can run, and a home of nobody's.
struct Unprivileged {
    binary: PathBuf,
    home: String,
}

impl Unprivileged {
    fn new(lab: &Lab) -> Result<Self> {
        let binary = lab.dir().join("nsntrace");
        fs::copy(nsntrace_binary()?, &binary)?;
        let home = home(lab, &binary)?;
        chown(&home, Some(NOBODY), Some(NOBODY))?;
        Ok(Self { binary, home })
    }

    fn tshark(&self, lab: &Lab, program: &str, options: &[&str]) -> Result<Job> {
        let program = format!("extcap.nsntrace.program:{program}");
        let words = [&AS_NOBODY[..], &["tshark", "-n", "-i", "nsntrace", "-o", &program], options].concat();
        Ok(lab.tracer(words)?.env("HOME", &self.home))
    }

    /// Lets nobody run the binary by sudo. What the fake host has in /etc is its own.
    fn allow(&self, lab: &Lab) -> Result<()> {
        let rule =
            format!("nobody ALL=(root) NOPASSWD: {}\nDefaults !syslog, use_pty\n", self.binary.display());
        lab.host(["sh", "-c", "rm -f /etc/sudoers && cat >/etc/sudoers && chmod 440 /etc/sudoers"])?
            .input(rule.as_bytes())?
            .output()
            .map(drop)
    }
}

fn without_root_it_says_what_helps(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let nobody = Unprivileged::new(lab)?;
    // Only what tshark itself needs is there.
    let folder = lab.dir().join("bin");
    fs::create_dir(&folder)?;
    symlink("/usr/bin/dumpcap", folder.join("dumpcap"))?;
    let path = format!("PATH={}", folder.display());
    let tshark = [
        "/usr/bin/env",
        &path,
        "/usr/bin/tshark",
        "-i",
        "nsntrace",
        "-o",
        "extcap.nsntrace.program:/bin/true",
    ];
    let words = [&AS_NOBODY[..], &tshark].concat();
    let done = lab.tracer(words)?.env("HOME", &nobody.home).run()?;
    let error = errors(&done).with_context(|| format!("nothing is told: {}", done.stderr))?;
    ensure!(error.starts_with("nsntrace: a trace needs root: ") && error.contains("sudo"), "{error}");
    // What needs no root does without it.
    ensure!(done.stderr.contains("Capturing on 'nsntrace: trace a program"), "{}", done.stderr);
    lab.assert_clean(&before)
}

fn sudo_makes_the_trace(lab: &Lab) -> Result<()> {
    let _echo = lab.udp_echo(7007)?;
    let nobody = Unprivileged::new(lab)?;
    nobody.allow(lab)?;
    let before = lab.snapshot()?;
    let file = Path::new(&nobody.home).join("who");
    let program = format!("sh -c 'id -u >{}; echo hello | nc -u -w 1 {SERVER_ADDRESS} 7007'", file.display());
    let trace = Path::new(&nobody.home).join("trace.pcapng");
    let job = nobody.tshark(lab, &program, &["-w", trace.to_str().context("a path")?])?;
    let done = job.run()?.exited(0)?;
    ensure!(errors(&done).is_none(), "{}", done.stderr);
    lab.assert_clean(&before)?;
    // The user of the trace, not the one who can make it.
    assert_eq!(fs::read_to_string(file)?.trim(), NOBODY.to_string());
    let trace = Trace::new(trace);
    assert_eq!(trace.count_of("udp.port == 7007 && data == 68:65:6c:6c:6f:0a")?, 2);
    Ok(())
}

/// A signal of nobody's does not reach what sudo has started.
fn sudo_passes_a_stop_on(lab: &Lab) -> Result<()> {
    let nobody = Unprivileged::new(lab)?;
    nobody.allow(lab)?;
    let before = lab.snapshot()?;
    // Pinging is not every user's right.
    let beat = format!("sh -c 'while :; do echo beat | nc -u -w 1 {SERVER_ADDRESS} 7007; done'");
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut run = nobody.tshark(lab, &beat, &["-l"])?.spawn()?;
        run.says("UDP")?;
        ensure!(before != lab.snapshot()?);
        run.signal(signal)?;
        run.wait()?;
        lab.assert_clean(&before)?;
    }
    Ok(())
}
