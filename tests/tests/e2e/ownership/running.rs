//! Whose packets are in a cgroup of the host, old processes and old sockets included.

use std::io::Write;
use std::process::ChildStdin;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{
    Cgroup, Done, HOST_ADDRESS, Lab, Pcapng, Running, SERVER_ADDRESS, SERVER_ADDRESS6, ask,
};

use super::{FORKING, all, owners};
use crate::{Case, cases, cgroup::SERVER};

pub const CASES: &[Case] = cases![
    old_connections_and_new_ones,
    old_server_that_forks,
    old_socket_of_several,
    old_process_by_name,
    every_protocol_of_a_cgroup,
];

/// Starts a trace of a cgroup.
fn trace(lab: &Lab, cgroup: &Cgroup, options: &[&str]) -> Result<Running> {
    let path = cgroup.path().to_str().context("a path")?;
    let mut run = lab.nsntrace([&["-o", "x.pcapng", "--cgroup", path], options].concat())?.spawn()?;
    run.complains("Use ctrl-c")?;
    Ok(run)
}

fn end(run: Running) -> Result<Done> {
    run.signal(Signal::SIGINT)?;
    run.wait()?.exited(0)
}

/// Has a connection and a socket for datagrams, and sends each line of stdin over both. What comes back, it prints.
const CLIENT: &str = "
import os, socket, sys
tcp = socket.create_connection((sys.argv[1], 7000))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print('ready', flush=True)
for line in sys.stdin:
    tcp.sendall(b'tcp ' + line.encode())
    udp.sendto(b'udp ' + line.encode(), (sys.argv[1], 7))
    print(tcp.recv(1000).decode(), udp.recv(1000).decode(), flush=True)
";

struct Client {
    process: Running,
    lines: ChildStdin,
}

impl Client {
    fn start(lab: &Lab, cgroup: &Cgroup) -> Result<Self> {
        let mut process = lab.host_in(cgroup, ["python3", "-c", CLIENT, SERVER_ADDRESS])?.told().spawn()?;
        process.says("ready")?;
        Ok(Self { lines: process.stdin_pipe()?, process })
    }

    fn say(&mut self, word: &str) -> Result<()> {
        self.lines.write_all(format!("{word}\n").as_bytes())?;
        self.process.says(&format!("udp {word}")).map(drop)
    }

    fn owner(&self) -> String {
        format!("pid {} python3", self.process.pid())
    }
}

fn servers(lab: &Lab) -> Result<(Running, nsntrace_tests::Server)> {
    let echo = ask::start(lab.internet(["python3", "-c", SERVER, SERVER_ADDRESS])?)?;
    Ok((echo, lab.udp_echo(7)?))
}

fn old_connections_and_new_ones(lab: &Lab) -> Result<()> {
    let _servers = servers(lab)?;
    let web = lab.web()?;
    let one = lab.cgroup("one")?;
    let mut old = [Client::start(lab, &one)?, Client::start(lab, &one)?];
    let run = trace(lab, &one, &[])?;
    let mut new = Client::start(lab, &one)?;
    let [first, second] = &mut old;
    for (client, word) in [(&mut *first, "first"), (&mut *second, "second"), (&mut new, "third")] {
        client.say(word)?;
    }
    let shell = lab.host_in(&one, ["sh", "-c", "curl -s -o page \"$1\" & echo $!; wait", "sh", &web.url])?;
    let curl = shell.output()?;
    let done = end(run)?;
    for (client, word) in [(&*first, "first"), (&*second, "second"), (&new, "third")] {
        all(&done, &format!("tcp.len > 0 && frame contains \"{word}\""), 2, &client.owner())?;
        all(&done, &format!("udp && frame contains \"{word}\""), 2, &client.owner())?;
    }
    let owners = owners(&done, "tcp.port == 80")?;
    let expected = format!("pid {} curl", curl.trim());
    ensure!(owners.len() > 20 && owners.iter().all(|owner| *owner == expected), "{owners:?}");
    // Nothing has no owner.
    assert!(self::owners(&done, "ip")?.iter().all(|owner| !owner.is_empty()));
    // The table has those that were there before, with their beginnings.
    let file = Pcapng::read(&done.dir.join("x.pcapng"))?;
    for client in old {
        let pid = client.process.pid();
        let line = file.processes.iter().find(|line| line.starts_with(&format!("process {pid} python3, ")));
        let line = line.with_context(|| format!("no {pid} in {:?}", file.processes))?;
        ensure!(
            !line.contains(", 0 packets")
                && line.contains(" packets, /usr/bin/python3")
                && line.contains(": python3 -c "),
            "{line}"
        );
        let from =
            line.split_once(" from ").and_then(|(_, rest)| rest.split(',').next()).context("no time")?;
        let began: f64 = from.parse()?;
        let start = file.statistics[0].1.from;
        ensure!(began * 1e9 < start as f64 && began * 1e9 > start as f64 - 60e9, "{line}, from {start}");
    }
    Ok(())
}

/// A listener's connections are told as in a namespace.
fn old_server_that_forks(lab: &Lab) -> Result<()> {
    let one = lab.cgroup("one")?;
    let server = ask::start(lab.host_in(&one, ["python3", "-c", FORKING])?)?;
    let listener = format!("pid {} python3", server.pid());
    let run = trace(lab, &one, &[])?;
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(lab.internet(ask::ask("tcp", HOST_ADDRESS, "8000"))?.output()?.trim().to_owned());
    }
    let done = end(run)?;
    all(&done, "tcp.flags.syn == 1", 6, &listener)?;
    for (stream, child) in children.iter().enumerate() {
        let answer = format!("tcp.stream == {stream} && tcp.srcport == 8000 && tcp.len > 0");
        all(&done, &answer, 1, &format!("pid {child} python3"))?;
    }
    Ok(())
}

/// A parent and a child have one old socket; until one of them sends, it is the older one's.
const SHARED: &str = "
import os, socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], 5000))
child = os.fork()
if child == 0:
    print('ready', os.getpid(), flush=True)
    udp.recvfrom(100)
    udp.sendto(b'answer', (sys.argv[2], 7))
    os._exit(0)
os.wait()
";

fn old_socket_of_several(lab: &Lab) -> Result<()> {
    let _sink = lab.udp_sink(7)?;
    let one = lab.cgroup("one")?;
    let mut parent = lab.host_in(&one, ["python3", "-c", SHARED, HOST_ADDRESS, SERVER_ADDRESS])?.spawn()?;
    let child = parent.says("ready")?.trim().replace("ready ", "");
    let owner = format!("pid {} python3", parent.pid());
    let run = trace(lab, &one, &[])?;
    let send = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 5000))";
    lab.internet(["python3", "-c", send, HOST_ADDRESS])?.output()?;
    parent.wait()?.exited(0)?;
    let done = end(run)?;
    all(&done, "udp.dstport == 5000", 1, &owner)?;
    all(&done, "udp.dstport == 7", 1, &format!("pid {child} python3"))
}

fn old_process_by_name(lab: &Lab) -> Result<()> {
    let _servers = servers(lab)?;
    let web = lab.web()?;
    let one = lab.cgroup("one")?;
    let mut old = Client::start(lab, &one)?;
    let runs = [
        trace(lab, &one, &["--process", "python3", "-v"])?,
        trace(lab, &one, &["--process", "curl", "-f", "dst port 80", "-v"])?,
    ];
    old.say("word")?;
    lab.host_in(&one, ["curl", "-s", "-o", "page", &web.url])?.output()?;
    let [python, curl] = runs.map(end);
    let (python, curl) = (python?, curl?);
    all(&python, "ip && frame contains \"word\"", 4, &old.owner())?;
    assert_eq!(python.trace_at("x.pcapng").count_of("tcp.port == 80")?, 0);
    let trace = curl.trace_at("x.pcapng");
    assert_eq!(trace.count()?, trace.count_of("tcp.dstport == 80")? as u64);
    assert!(trace.count()? > 3);
    Ok(())
}

fn every_protocol_of_a_cgroup(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let (_echo, _echo6) = (lab.udp_echo(7)?, lab.udp_echo6(7)?);
    let web = lab.web6()?;
    let one = lab.cgroup("one")?;
    let run = trace(lab, &one, &[])?;
    let script = "exec \"$@\"";
    let start = |words: &[&str]| -> Result<String> {
        let job = lab.host_in(&one, [&["sh", "-c", script, "sh"], words].concat())?.spawn()?;
        let pid = job.pid();
        job.wait()?.exited(0)?;
        Ok(format!("pid {pid} {}", words[0]))
    };
    let ping = start(&["busybox", "ping", "-c", "2", SERVER_ADDRESS])?;
    let ping6 = start(&["busybox", "ping", "-c", "2", SERVER_ADDRESS6])?;
    let udp = start(&ask::ask("udp", SERVER_ADDRESS, "7"))?;
    let udp6 = start(&ask::ask("udp", SERVER_ADDRESS6, "7"))?;
    let curl = start(&["curl", "-s", "-o", "page", &web.url])?;
    let done = end(run)?;
    all(&done, "icmp", 4, &ping)?;
    all(&done, "icmpv6", 4, &ping6)?;
    all(&done, "udp && ip", 2, &udp)?;
    all(&done, "udp && ipv6", 2, &udp6)?;
    let owners = owners(&done, "tcp && ipv6")?;
    ensure!(owners.len() > 20 && owners.iter().all(|owner| *owner == curl), "{owners:?}");
    Ok(())
}
