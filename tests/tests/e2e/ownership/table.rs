//! The processes of a trace, as the file and the summary tell of them.

use std::{collections::HashSet, io::Read};

use anyhow::{Context, Result, bail, ensure};
use nsntrace_tests::{Done, Lab, Pcapng, SERVER_ADDRESS, Summary, ask, number_before};

use super::{all, owners, printed, python, run};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    table_of_processes,
    table_of_short_lived_processes,
    table_of_each_file,
    process_without_its_first_thread,
    lost_events,
    processes_in_the_summary,
];

/// What the trace says of a process.
#[derive(Debug)]
struct Process {
    pid: u32,
    name: String,
    parent: String,
    user: String,
    from: f64,
    to: f64,
    packets: usize,
    rest: String,
}

/// Reads `process PID NAME, parent PID NAME, user ID, from SECONDS to SECONDS, N packets, PATH: WORDS`.
fn process(line: &str) -> Result<Process> {
    let parts: Vec<_> = line.splitn(6, ", ").collect();
    let [process, parent, user, time, packets, rest] = parts[..] else { bail!("{line}") };
    let part = |text: &str, word: &str| -> Result<String> {
        Ok(text.strip_prefix(word).with_context(|| format!("no {word:?} in {line}"))?.to_owned())
    };
    let process = part(process, "process ")?;
    let (pid, name) = process.split_once(' ').context("no name")?;
    let time = part(time, "from ")?;
    let (from, to) = time.split_once(" to ").with_context(|| format!("no end in {line}"))?;
    Ok(Process {
        pid: pid.parse()?,
        name: name.into(),
        parent: part(parent, "parent ")?,
        user: part(user, "user ")?,
        from: from.parse()?,
        to: to.parse()?,
        packets: packets.trim_end_matches(" packets").parse()?,
        rest: rest.into(),
    })
}

fn table(done: &Done) -> Result<Vec<Process>> {
    Pcapng::read(&done.dir.join("x.pcapng"))?.processes.iter().map(|line| process(line)).collect()
}

/// It has not ended when that has.
fn process_without_its_first_thread(lab: &Lab) -> Result<()> {
    let script = "
import ctypes, os, socket, sys, threading
first = f'/proc/self/task/{os.getpid()}/stat'
def go_on():
    while open(first).read().split()[2] != 'Z':
        pass
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'late', (sys.argv[1], 9))
    os._exit(0)
print('python', os.getpid(), flush=True)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(60, 0)
";
    let done = python(lab, script, &[SERVER_ADDRESS])?;
    let pid = printed(&done, "python")?;
    all(&done, "udp.port == 9 && !icmp", 1, &format!("pid {pid} python3"))?;
    let sent =
        done.trace_at("x.pcapng").fields("udp.port == 9 && !icmp", &["frame.time_epoch"])?.concat().concat();
    let processes: Vec<_> =
        table(&done)?.into_iter().filter(|process| process.pid.to_string() == pid).collect();
    ensure!(processes.len() == 1 && processes[0].to > sent.parse()?, "sent at {sent}: {processes:?}");
    Ok(())
}

/// Nobody takes them while the reader of the trace does not read on: that is told.
fn lost_events(lab: &Lab) -> Result<()> {
    let _sink = lab.udp_sink(9)?;
    let script = r#""$0" "$1" 5000 >&2; number=0
        while [ $number -lt 2000 ]; do busybox true; number=$((number + 1)); done; echo done >&2"#;
    let flood = env!("CARGO_BIN_EXE_flood");
    let words = ["-o", "-", "--format", "pcapng", "sh", "-c", script, flood, &format!("{SERVER_ADDRESS}:9")];
    let mut run = lab.nsntrace(words)?.piped().spawn()?;
    let mut reader = run.stdout_pipe()?;
    run.complains("done")?;
    let mut trace = Vec::new();
    reader.read_to_end(&mut trace)?;
    let done = run.wait()?.exited(0)?;
    let line =
        done.stderr.lines().find(|line| line.contains("events of processes")).context("it is not said")?;
    let lost = number_before(line, " events of processes were lost")?;
    let comment = format!("{lost} events of processes were lost: names may be wrong");
    ensure!(lost > 500 && String::from_utf8_lossy(&trace).contains(&comment), "{line}");
    Ok(())
}

fn table_of_processes(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    // What is of no use to a terminal is not in it.
    let script = r#"curl -s -o /dev/null "$1" "$2" & echo "curl $!"; wait; echo "sh $$""#;
    let words = ["sh", "-c", script, "sh", &web.url, "file:///\u{1b}[31m"];
    let done = run(lab, &["-u", "nobody"], &words)?;
    let (sh, curl) = (printed(&done, "sh")?, printed(&done, "curl")?);
    let table = table(&done)?;
    let [shell, client] = &table[..] else { panic!("{table:?}") };
    assert_eq!((shell.pid.to_string(), &shell.name[..]), (sh.clone(), "sh"));
    assert!(shell.parent.ends_with(" nsntrace"), "{shell:?}");
    assert!(shell.rest.starts_with("/usr/bin/sh: sh -c 'curl -s -o /dev/null"), "{shell:?}");
    assert_eq!((client.pid.to_string(), &client.name[..]), (curl.clone(), "curl"));
    assert_eq!(client.parent, format!("{sh} sh"));
    assert_eq!((&shell.user[..], &client.user[..]), ("65534", "65534"));
    assert_eq!(client.rest, format!("/usr/bin/curl: curl -s -o /dev/null {} 'file:///?[31m'", web.url));
    assert_eq!((shell.packets, client.packets), (0, owners(&done, "tcp")?.len()));
    let during = done.trace_at("x.pcapng").fields("tcp", &["frame.time_epoch"])?;
    let time =
        |row: Option<&Vec<String>>| row.context("no packets").and_then(|row| Ok(row[0].parse::<f64>()?));
    let (first, last) = (time(during.first())?, time(during.last())?);
    assert!(shell.from <= client.from && client.from <= first, "{table:?}, {first}");
    assert!(client.to <= shell.to && client.to <= last + 1.0, "{table:?}, {last}");
    Ok(())
}

/// Two hundred that do nothing are all in it, and so is what each was called with.
fn table_of_short_lived_processes(lab: &Lab) -> Result<()> {
    let script = "for number in $(seq 200); do /bin/true $number; done";
    let table = table(&run(lab, &[], &["sh", "-c", script])?)?;
    let all: Vec<_> = table.iter().filter(|process| process.name == "true").collect();
    let expected: Vec<_> = (1..=200).map(|number| format!("/bin/true: /bin/true {number}")).collect();
    assert_eq!(
        all.iter().map(|process| &process.rest).collect::<Vec<_>>(),
        expected.iter().collect::<Vec<_>>()
    );
    assert_eq!(all.iter().map(|process| process.pid).collect::<HashSet<_>>().len(), 200);
    let shell = table.iter().find(|process| process.name == "sh").context("no shell")?;
    for process in all {
        assert_eq!(process.parent, format!("{} sh", shell.pid));
        assert!(shell.from <= process.from && process.from <= process.to && process.to <= shell.to);
    }
    Ok(())
}

/// Each file of a rotation tells of those that were there in its time.
fn table_of_each_file(lab: &Lab) -> Result<()> {
    let (web, _sink) = (lab.web()?, lab.udp_sink(9)?);
    let script = r#"curl -s -o page "$1"; curl -s -o page "$1"; exec bash -c "echo >/dev/udp/$2/9""#;
    let words = ["-C", "2", "sh", "-c", script, "sh", &web.url, SERVER_ADDRESS];
    let done = run(lab, &[], &words)?;
    let names = |number: &str| -> Result<Vec<String>> {
        let lines = Pcapng::read(&done.dir.join(format!("x.pcapng{number}")))?.processes;
        Ok(lines.iter().filter_map(|line| line.split([' ', ',']).nth(2)).map(String::from).collect())
    };
    assert_eq!(names("")?, ["sh", "curl"]);
    // The first download ends, and the second begins.
    assert_eq!(names("1")?, ["sh", "curl", "curl"]);
    let last = (1..10).take_while(|number| done.dir.join(format!("x.pcapng{number}")).exists()).last();
    let last = names(&last.context("one file")?.to_string())?;
    assert!(last.contains(&"bash".into()) && !last.contains(&"sh".into()), "{last:?}");
    Ok(())
}

/// A row of the summary is that of a process's name, or of what nobody's terminal obeys of it.
fn processes_in_the_summary(lab: &Lab) -> Result<()> {
    let _servers = (lab.web()?, lab.udp_echo(7)?);
    let script = r#"
        ln -s "$(command -v curl)" "$(printf 'a\033[31mname')"
        for name in curl ./a*; do "$name" -s -o page "http://$2/" & echo "${name##*/} $!"; wait; done
        for number in 1 2; do python3 -c "$1" udp "$2" 7 20 >/dev/null & echo "python$number $!"; wait; done"#;
    let words = ["sh", "-c", script, "sh", ask::ask("udp", "", "")[2], SERVER_ADDRESS];
    let done = lab.nsntrace([&["--summary=json"], &words[..]].concat())?.run()?.exited(0)?;
    let summary = Summary::of(&done)?;
    let pid = |word: &str| -> Result<u64> { Ok(printed(&done, word)?.parse()?) };
    for (process, expected) in [
        ("curl", vec![pid("curl")?]),
        ("a?[31mname", vec![pid("a\u{1b}[31mname")?]),
        ("python3", vec![pid("python1")?, pid("python2")?]),
    ] {
        assert_eq!(summary.peer_of(process)?.numbers("pids")?, expected, "{process}");
    }

    let done = lab.nsntrace([&["--summary"], &words[..]].concat())?.run()?.exited(0)?;
    for (process, port) in [("curl", 80), ("a?[31mname", 80), ("python3", 7)] {
        let row = done.line_with(&format!("{process} "))?;
        ensure!(row.contains(&format!("{SERVER_ADDRESS}:{port} ")), "{row}");
    }
    ensure!(!done.stderr.contains('\u{1b}'), "{:?}", done.stderr);
    Ok(())
}
