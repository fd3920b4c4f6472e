//! `--cgroup` and `--pid`: what already runs is traced, and nobody else; nothing is left attached.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ChildStdin,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{
    Cgroup, Done, HOST_ADDRESS, HOST_DEVICE, Lab, Pcapng, Running, SERVER_ADDRESS, SERVER_ADDRESS6, SOON,
    ask,
    filter::{Program, alone_at_new_sockets, attached, compile},
    number_before, own_cgroup, until,
};

use crate::{
    Case, cases,
    filter::{RAW, frames_of},
};

pub const CASES: &[Case] = cases![
    only_the_one_is_traced,
    descendants_are_traced,
    every_protocol_and_interface,
    filter_picks_what_tcpdump_picks,
    filter_by_direction,
    count_and_duration_end_it,
    each_signal_ends_it,
    ends_with_its_cgroup,
    ends_with_its_reader,
    disk_full,
    others_are_not_disturbed,
    owners_are_done_without,
    kill_leaves_nothing_attached,
    unit_names,
    process_alone_and_among_others,
    who_comes_later_is_named,
    refusals,
];

/// See [`attached`].
const NOTHING: [Vec<u32>; 2] = [Vec::new(), Vec::new()];

/// Echoes on all connections, and says when it listens.
pub const SERVER: &str = "
import socket, sys, threading
server = socket.create_server((sys.argv[1], 7000))
print('listening', flush=True)
def echo(connection):
    while data := connection.recv(1000):
        connection.sendall(data)
while True:
    threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()
";

/// Sends each line of stdin over one connection and prints what comes back.
const CLIENT: &str = "
import socket, sys
client = socket.create_connection((sys.argv[1], 7000))
print('port', client.getsockname()[1], flush=True)
for line in sys.stdin:
    client.sendall(line.encode())
    print('got', client.recv(1000).decode(), flush=True)
";

/// A client with its connection.
struct Client {
    process: Running,
    lines: ChildStdin,
    port: String,
}

impl Client {
    fn start(lab: &Lab, cgroup: &Cgroup) -> Result<Self> {
        let job = lab.host_in(cgroup, ["python3", "-c", CLIENT, SERVER_ADDRESS])?;
        let mut process = job.told().spawn()?;
        let port = process.says("port ")?.trim().replace("port ", "");
        Ok(Self { lines: process.stdin_pipe()?, process, port })
    }

    fn say(&mut self, word: &str) -> Result<()> {
        self.lines.write_all(format!("{word}\n").as_bytes())?;
        self.process.says(&format!("got {word}")).map(drop)
    }
}

/// A trace of a cgroup, attached.
fn trace(lab: &Lab, cgroup: &Cgroup, options: &[&str]) -> Result<Running> {
    let path = cgroup.path().to_str().context("a path")?;
    started(lab, &[options, &["--cgroup", path]].concat())
}

fn started(lab: &Lab, arguments: &[&str]) -> Result<Running> {
    let mut run = lab.nsntrace(arguments)?.spawn()?;
    run.complains("Use ctrl-c")?;
    Ok(run)
}

fn end(run: Running) -> Result<Done> {
    run.signal(Signal::SIGINT)?;
    run.wait()?.exited(0)
}

/// Runs a command in a cgroup to its end.
fn run_in(lab: &Lab, cgroup: &Cgroup, words: &[&str]) -> Result<String> {
    lab.host_in(cgroup, words)?.output()
}

fn only_the_one_is_traced(lab: &Lab) -> Result<()> {
    let _server = ask::start(lab.internet(["python3", "-c", SERVER, SERVER_ADDRESS])?)?;
    let web = lab.web()?;
    let (one, two) = (lab.cgroup("one")?, lab.cgroup("two")?);
    let (mut first, mut second) = (Client::start(lab, &one)?, Client::start(lab, &two)?);
    let before = lab.snapshot()?;
    let run = trace(lab, &one, &[])?;
    // Nothing but its own processes is new on the host.
    assert_eq!(before, lab.snapshot()?);
    for number in 0..5 {
        first.say(&format!("first {number}"))?;
        second.say(&format!("second {number}"))?;
    }
    for cgroup in [&one, &two] {
        ensure!(run_in(lab, cgroup, &["curl", "-s", &web.url])?.len() > 1000, "no download");
    }
    let done = end(run)?;
    lab.assert_clean(&before)?;

    let trace = done.trace();
    let info = trace.info()?;
    assert_eq!((&info.kind[..], &info.link[..], info.in_order), ("nsecpcap", "rawip", true));
    assert_eq!(done.captured()?, info.packets);
    assert_eq!(done.dropped()?, 0);
    // The old connection, both ways, and nothing of the other's.
    let old =
        trace.fields("tcp.port == 7000 && tcp.len > 0", &["tcp.srcport", "tcp.dstport", "tcp.payload"])?;
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let expected: Vec<_> = (0..5)
        .flat_map(|number| {
            let payload = hex(&format!("first {number}\n"));
            [[&first.port, "7000", &payload], ["7000", &first.port, &payload]]
                .map(|row| row.map(String::from).to_vec())
        })
        .collect();
    assert_eq!(old, expected);
    assert!(trace.http_bodies()?.get("data.bin") == Some(&web.body), "the download is not whole");
    let ports = trace.fields("tcp.flags.syn == 1 && tcp.flags.ack == 0", &["tcp.srcport"])?;
    assert_eq!(ports.len(), 1, "connections of others: {ports:?}");
    assert_eq!(trace.count_of(&format!("tcp.port == {} || !tcp", second.port))?, 0);
    Ok(())
}

fn descendants_are_traced(lab: &Lab) -> Result<()> {
    let _echo = lab.udp_echo(7)?;
    let above = lab.cgroup("above")?;
    let middle = above.child("middle")?;
    let inner = middle.child("inner")?;
    let run = trace(lab, &above, &[])?;
    run_in(lab, &inner, &ask::ask("udp", SERVER_ADDRESS, "7"))?;
    assert_eq!(end(run)?.captured()?, 2);
    Ok(())
}

fn every_protocol_and_interface(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let (_echo, _echo6) = (lab.udp_echo(7)?, lab.udp_echo6(7)?);
    let web = lab.web6()?;
    let _local = ask::start(lab.host(ask::answer("7001", &["127.0.0.1", "::1"]))?)?;
    let one = lab.cgroup("one")?;
    let run = trace(lab, &one, &["-o", "x.pcapng"])?;
    for (address, local) in [(SERVER_ADDRESS, "127.0.0.1"), (SERVER_ADDRESS6, "::1")] {
        run_in(lab, &one, &["busybox", "ping", "-c", "3", address])?;
        run_in(lab, &one, &ask::ask("udp", address, "7"))?;
        assert_eq!(run_in(lab, &one, &ask::ask("udp", local, "7001"))?.trim(), local);
        assert_eq!(run_in(lab, &one, &ask::ask("tcp", local, "7001"))?.trim(), local);
    }
    run_in(lab, &one, &["curl", "-s", "-o", "page", &web.url])?;
    let done = end(run)?;
    let trace = done.trace_at("x.pcapng");
    for (filter, count) in [
        ("icmp.type == 8", 3),
        ("icmp.type == 0", 3),
        ("icmpv6.type == 128", 3),
        ("icmpv6.type == 129", 3),
        ("udp.port == 7 && ip", 2),
        ("udp.port == 7 && ipv6", 2),
        ("udp.port == 7001 && ip", 2),
        ("udp.port == 7001 && ipv6", 2),
        ("tcp.port == 7001 && tcp.flags.syn == 1 && ip", 2),
        ("tcp.port == 7001 && tcp.flags.syn == 1 && ipv6", 2),
        ("arp || icmpv6.type >= 133", 0),
    ] {
        assert_eq!(trace.count_of(filter)?, count, "{filter}");
    }
    assert!(trace.http_bodies()?.get("data.bin") == Some(&web.body), "the download is not whole");

    let file = Pcapng::read(trace.path())?;
    let mut names: Vec<_> = file.interfaces.iter().map(|one| (one.name.as_deref(), one.link_type)).collect();
    names.sort_unstable();
    assert_eq!(names, [(Some(HOST_DEVICE), 101), (Some("lo"), 101)]);
    let out = trace.count_of("frame.packet_flags_direction == 2")?;
    let sent = trace.count_of(&format!(
        "(frame.interface_name == \"{HOST_DEVICE}\" && !(ip.dst == {HOST_ADDRESS}) && !(ipv6.dst == \
         2001:db8:99::1)) || (frame.interface_name == lo && (udp.dstport == 7001 || tcp.dstport == 7001))"
    ))?;
    assert_eq!(out, sent);
    Ok(())
}

/// Two traces of one cgroup at once: that with `-f` has what tcpdump picks of the other.
fn filter_picks_what_tcpdump_picks(lab: &Lab) -> Result<()> {
    const EXPRESSIONS: &[&str] = &[
        "tcp port 80",
        "udp",
        "icmp or icmp6",
        "ip6",
        "dst host 203.0.113.7 and not tcp",
        "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
        "greater 2001",
        "ip[2000] >= 0 or ip6[2000] >= 0",
        "ip6 protochain 17",
        "tcp[((tcp[12]&0xf0)>>2):4]=0x47455420",
    ];
    lab.ipv6()?;
    let (_echo, _echo6) = (lab.udp_echo(7)?, lab.udp_echo6(7)?);
    let (web, web6) = (lab.web()?, lab.web6()?);
    let one = lab.cgroup("one")?;
    let all = trace(lab, &one, &[])?;
    let picky = EXPRESSIONS
        .iter()
        .map(|expression| trace(lab, &one, &["-v", "-f", expression]))
        .collect::<Result<Vec<_>>>()?;
    for (address, url) in [(SERVER_ADDRESS, &web.url), (SERVER_ADDRESS6, &web6.url)] {
        run_in(lab, &one, &["busybox", "ping", "-s", "3000", "-c", "2", address])?;
        run_in(lab, &one, &ask::ask("udp", address, "7"))?;
        run_in(lab, &one, &["curl", "-s", "-o", "page", url])?;
    }
    until("the end of all connections", SOON, || {
        let open = lab.host(["ss", "-Htn", "state", "connected", "exclude", "time-wait"])?.output()?;
        Ok(open.is_empty().then_some(()))
    })?;
    let picky = picky.into_iter().map(end).collect::<Result<Vec<_>>>()?;
    let all = end(all)?;
    for (expression, done) in EXPRESSIONS.iter().zip(picky) {
        let expected = frames_of(&all.trace(), expression)?;
        ensure!(!expected.is_empty(), "'{expression}' picks nothing");
        // Two processors' packets may be stamped in another order here and there.
        let sorted = |mut frames: Vec<String>| {
            frames.sort_unstable();
            frames
        };
        let picked = frames_of(&done.trace(), "")?;
        ensure!(sorted(picked) == sorted(expected), "'{expression}' picks something else");
        let books = done.line_with(" packets filtered out")?.trim_start_matches("nsntrace: ");
        let filtered = number_before(books, " packets filtered out")?;
        assert_eq!(filtered + done.captured()?, all.captured()?, "'{expression}'");
    }
    Ok(())
}

fn filter_by_direction(lab: &Lab) -> Result<()> {
    let _echo = lab.udp_echo(7)?;
    let one = lab.cgroup("one")?;
    let runs = [trace(lab, &one, &["-f", "inbound"])?, trace(lab, &one, &["-f", "outbound"])?];
    run_in(lab, &one, &ask::ask("udp", SERVER_ADDRESS, "7"))?;
    for (run, port) in runs.into_iter().zip(["udp.srcport", "udp.dstport"]) {
        let trace = end(run)?.trace();
        assert_eq!((trace.count()?, trace.count_of(&format!("{port} == 7"))?), (1, 1));
    }
    Ok(())
}

fn count_and_duration_end_it(lab: &Lab) -> Result<()> {
    let _echo = lab.udp_echo(7)?;
    let one = lab.cgroup("one")?;
    let run = trace(lab, &one, &["-c", "3"])?;
    for _ in 0..2 {
        run_in(lab, &one, &ask::ask("udp", SERVER_ADDRESS, "7"))?;
    }
    let done = run.wait()?.exited(0)?;
    assert_eq!((done.captured()?, done.trace().count()?), (3, 3));
    let done = trace(lab, &one, &["--duration", "0.5"])?.wait()?.exited(0)?;
    assert_eq!((done.captured()?, done.trace().count()?), (0, 0));
    assert_eq!(attached(one.path())?, NOTHING);
    Ok(())
}

fn each_signal_ends_it(lab: &Lab) -> Result<()> {
    let one = lab.cgroup("one")?;
    use Signal::{SIGABRT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGTERM] {
        let mut run = trace(lab, &one, &["-o", "x.pcapng"])?;
        run.signal(SIGUSR1)?;
        run.complains("0 packets captured, 0 dropped so far.")?;
        run.signal(signal)?;
        let done = run.wait()?.exited(0)?;
        assert_eq!((done.captured()?, done.trace_at("x.pcapng").count()?), (0, 0), "{signal}");
    }
    assert_eq!(attached(one.path())?, NOTHING);
    Ok(())
}

fn ends_with_its_cgroup(lab: &Lab) -> Result<()> {
    let _echo = lab.udp_echo(7)?;
    let one = lab.cgroup("one")?;
    let run = trace(lab, &one, &[])?;
    run_in(lab, &one, &ask::ask("udp", SERVER_ADDRESS, "7"))?;
    until("the removal of the cgroup", SOON, || Ok(fs::remove_dir(one.path()).ok()))?;
    let done = run.wait()?.exited(0)?;
    assert!(done.stderr.contains(&format!("cgroup '{}' has gone", one.path().display())), "{}", done.stderr);
    assert_eq!((done.captured()?, done.trace().count()?), (2, 2));
    Ok(())
}

/// Even where no packet would tell.
fn ends_with_its_reader(lab: &Lab) -> Result<()> {
    let one = lab.cgroup("one")?;
    let path = one.path().to_str().context("a path")?;
    let mut run = lab.nsntrace(["-o", "-", "--cgroup", path])?.piped().spawn()?;
    run.complains("Use ctrl-c")?;
    drop(run.stdout_pipe()?);
    run.wait()?.exited(0)?;
    assert_eq!(attached(one.path())?, NOTHING);
    Ok(())
}

/// Here there is no program whose status it would be.
fn disk_full(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let disk = lab.small_disk("300k")?;
    let one = lab.cgroup("one")?;
    let run = trace(lab, &one, &["-o", &format!("{disk}/x.pcap")])?;
    run_in(lab, &one, &["curl", "-s", "-o", "page", &web.url])?;
    let done = run.wait()?.exited(1)?;
    ensure!(done.line_with("No space left")?.starts_with("nsntrace: "), "{}", done.stderr);
    Ok(())
}

fn others_are_not_disturbed(lab: &Lab) -> Result<()> {
    let _echo = lab.udp_echo(7)?;
    let one = lab.cgroup("one")?;
    let load = |expression| Program::CgroupSkb.load(&compile(expression, RAW)?);
    let (before, after, alone) = (load("udp")?, load("len > 0")?, load("len > 0")?);
    before.attach(one.path(), true)?;
    let [early, _] = attached(one.path())?;
    let run = trace(lab, &one, &[])?;
    after.attach(one.path(), true)?;
    let [during, _] = attached(one.path())?;
    assert_eq!((during.len(), during.starts_with(&early)), (3, true));
    run_in(lab, &one, &ask::ask("udp", SERVER_ADDRESS, "7"))?;
    // The other's verdict holds: nothing but UDP.
    let refused = run_in(lab, &one, &ask::ask_in_vain("tcp", SERVER_ADDRESS, "7"))?;
    assert!(refused.contains("Error"), "{refused}");
    assert!(end(run)?.trace().count_of("udp")? == 2);
    assert_eq!(attached(one.path())?, [[during[0], during[2]], [during[0], during[2]]]);

    let two = lab.cgroup("two")?;
    alone.attach(two.path(), false)?;
    let path = two.path().to_str().context("a path")?;
    let done = lab.nsntrace(["--cgroup", path])?.run()?;
    assert!(done.complaint()?.contains("a program that wants to be alone"), "{}", done.stderr);
    Ok(())
}

fn owners_are_done_without(lab: &Lab) -> Result<()> {
    let _echo = lab.udp_echo(7)?;
    let one = lab.cgroup("one")?;
    alone_at_new_sockets(one.path())?;
    let run = trace(lab, &one, &["-o", "trace.pcapng"])?;
    run_in(lab, &one, &ask::ask("udp", SERVER_ADDRESS, "7"))?;
    let done = end(run)?;
    let words = "the trace does not tell whose packets are: cannot attach what finds owners to cgroup";
    assert!(done.stderr.contains(words), "{}", done.stderr);
    assert!(done.trace_at("trace.pcapng").count_of("udp")? == 2);

    let path = one.path().to_str().context("a path")?;
    let done = lab.nsntrace(["--cgroup", path, "--process", "curl"])?.run()?;
    let complaint = done.complaint()?;
    assert!(complaint.contains("--process: cannot attach what finds owners to cgroup"), "{complaint}");
    Ok(())
}

fn kill_leaves_nothing_attached(lab: &Lab) -> Result<()> {
    let one = lab.cgroup("one")?;
    let before = lab.snapshot()?;
    for options in [&[][..], &["-f", "udp"]] {
        let run = trace(lab, &one, options)?;
        assert_eq!(attached(one.path())?.map(|programs| programs.len()), [1, 1]);
        run.signal(Signal::SIGKILL)?;
        run.wait()?;
        until("the end of what is attached", SOON, || {
            Ok(attached(one.path())?.iter().all(Vec::is_empty).then_some(()))
        })?;
        lab.assert_clean(&before)?;
    }
    Ok(())
}

/// Names are looked for on the whole host, so they are this lab's alone.
fn unit_names(lab: &Lab) -> Result<()> {
    let lab_name = lab.tracer_cgroup().path().parent().and_then(Path::file_name).context("a lab")?;
    let unit = format!("{}.service", lab_name.to_str().context("a name")?);
    let slice = lab.cgroup("a.slice")?;
    let service = slice.child(&unit)?;
    let done = end(started(lab, &["--cgroup", &unit])?)?;
    assert!(done.stderr.contains(&format!("of cgroup '{}'", service.path().display())), "{}", done.stderr);

    let second = lab.cgroup(&unit)?;
    let done = lab.nsntrace(["--cgroup", &unit])?.run()?;
    let complaint = done.complaint()?;
    for cgroup in [&service, &second] {
        assert!(complaint.contains(cgroup.path().to_str().context("a path")?), "{complaint}");
    }
    // A path says which, and so does one as the kernel and systemd show it.
    let below = second.path().strip_prefix(mount()?)?.to_str().context("a path")?.to_owned();
    for name in [below.clone(), format!("/{below}")] {
        end(started(lab, &["--cgroup", &name])?)?;
    }
    Ok(())
}

/// Where the cgroup2 that shows the lab is mounted.
fn mount() -> Result<PathBuf> {
    let own = own_cgroup()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut mounts = mounts.lines().filter(|line| line.contains(" - cgroup2 "));
    let mount = mounts.find_map(|line| line.split(' ').nth(4).filter(|path| own.starts_with(path)));
    mount.map(PathBuf::from).context("no mount")
}

fn process_alone_and_among_others(lab: &Lab) -> Result<()> {
    let _echo = lab.udp_echo(7)?;
    let one = lab.cgroup("one")?;
    let script = "echo ready; read line; sleep 1000 & \"$@\" >&2; read line";
    let words = [&["sh", "-c", script, "sh"][..], &ask::ask("udp", SERVER_ADDRESS, "7")].concat();
    let mut tree = lab.host_in(&one, words)?.told().spawn()?;
    tree.says("ready")?;
    let mut lines = tree.stdin_pipe()?;
    let pid = tree.pid().to_string();
    let run = started(lab, &["-c", "2", "--pid", &pid])?;
    lines.write_all(b"\n")?;
    assert_eq!(run.wait()?.exited(0)?.captured()?, 2);
    // What it has started is its own.
    end(started(lab, &["--pid", &pid])?)?;

    let other = lab.host_in(&one, ["sleep", "1000"])?.spawn()?;
    let done = lab.nsntrace(["--pid", &pid])?.run()?;
    let complaint = done.complaint()?;
    for text in [&format!("sleep ({})", other.pid()), "--cgroup ", one.path().to_str().context("a path")?] {
        assert!(complaint.contains(text), "{complaint}");
    }
    let done = lab.nsntrace(["--pid", "4194305"])?.run()?;
    assert!(done.complaint()?.contains("no process 4194305"), "{}", done.stderr);
    Ok(())
}

/// A trace of a process's cgroup says who has come in that is not the process's own.
fn who_comes_later_is_named(lab: &Lab) -> Result<()> {
    let _echo = lab.udp_echo(7)?;
    let one = lab.cgroup("one")?;
    let script = "echo ready; read line; sleep 1000 & echo $!; read line";
    let mut tree = lab.host_in(&one, ["sh", "-c", script])?.told().spawn()?;
    tree.says("ready")?;
    let mut lines = tree.stdin_pipe()?;
    let mut run = started(lab, &["-c", "2", "--pid", &tree.pid().to_string()])?;
    lines.write_all(b"\n")?;
    let child = until("the child", SOON, || Ok(tree.stdout()?.lines().nth(1).map(String::from)))?;

    let other = lab.host_in(&one, ["sleep", "1000"])?.spawn()?;
    // Until it is the program, it has another name.
    let line = format!("({}) has come into the cgroup", other.pid());
    run.complains(&line)?;
    run_in(lab, &one, &ask::ask("udp", SERVER_ADDRESS, "7"))?;
    let done = run.wait()?.exited(0)?;
    assert_eq!(done.captured()?, 2);
    assert_eq!(done.stderr.matches(&line).count(), 1, "{}", done.stderr);
    assert!(!done.stderr.contains(&format!("({child})")), "{}", done.stderr);
    Ok(())
}

fn refusals(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let one = lab.cgroup("one")?;
    let path = one.path().to_str().context("a path")?;
    let missing = format!("{path}/missing");
    let file = format!("{path}/cgroup.procs");
    let mut refused = vec![
        (vec!["--cgroup", &missing], "there is no cgroup"),
        (vec!["--cgroup", "no-such.service"], "nor a unit of this name"),
        (vec!["--cgroup", "/tmp"], "is no cgroup"),
        (vec!["--cgroup", &file], "is no cgroup"),
        (vec!["--cgroup", path, "true"], "'true' would be started"),
        (vec!["--cgroup", path, "-f", "ether host 00:00:00:00:00:01"], "-f 'ether host"),
        (vec!["--cgroup", path, "--pid", "1"], "cannot be used with"),
    ];
    for option in ["-d=x", "-u=x", "-p=1", "--host-loopback", "--loopback", "--use-public-dns"] {
        refused.push((vec!["--cgroup", path, option], "is for a program in a namespace of its own"));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let v1 = mounts.lines().find(|line| line.contains(" - cgroup "));
    if let Some(v1) = v1.and_then(|line| line.split(' ').nth(4)) {
        refused.push((vec!["--cgroup", v1], "is a cgroup of version 1"));
    }
    for (arguments, reason) in refused {
        let done = lab.nsntrace(&arguments)?.run()?;
        let complaint = done.complaint()?;
        assert!(complaint.contains(reason), "{arguments:?}: {complaint}");
        assert!(!done.dir.join("nsntrace.pcap").exists());
    }
    lab.assert_clean(&before)
}
