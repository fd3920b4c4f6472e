//! Whose packet it is: the process that used the socket last, else the one that made it.

use std::io::Write;
use std::{collections::HashSet, fs};

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{Done, HOST_ADDRESS, Lab, Pcapng, Running, SERVER_ADDRESS, SERVER_ADDRESS6, ask};

use crate::{Case, cases};

/// An address on the link to the server that nobody has.
const NOBODY: &str = "10.99.0.77";

mod running;
mod table;
mod wanted;

/// Those of this group, in its parts.
pub const PARTS: [&[Case]; 4] = [CASES, table::CASES, wanted::CASES, running::CASES];

const CASES: &[Case] = cases![
    every_packet_of_a_download,
    both_families_and_protocols,
    forking_server,
    inherited_sockets,
    program_that_executes_another,
    daemon,
    unconnected_datagrams,
    short_lived_processes,
    answers_from_a_closed_port,
    messages_about_closed_connections,
    last_packet_of_a_connection,
    raw_sockets,
    packet_sockets,
    several_at_once,
    nothing_is_loaded_for_a_pcap,
];

/// What the trace says of the packets that a filter picks, one after the other; empty where it says nothing.
fn owners(done: &Done, filter: &str) -> Result<Vec<String>> {
    let rows = done.trace_at("x.pcapng").fields(filter, &["frame.comment"])?;
    Ok(rows.into_iter().map(|row| row.concat()).collect())
}

/// So many packets, each of this owner.
fn all(done: &Done, filter: &str, count: usize, owner: &str) -> Result<()> {
    let owners = owners(done, filter)?;
    ensure!(owners == vec![owner; count], "{filter}: {owners:?} in place of {count} times {owner:?}");
    Ok(())
}

/// The pid that the program has printed behind a word, on a line of its own.
fn printed(done: &Done, word: &str) -> Result<String> {
    let text = done.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{word} ")));
    line.map(String::from).with_context(|| format!("no {word:?} in {text:?}"))
}

fn run(lab: &Lab, options: &[&str], program: &[&str]) -> Result<Done> {
    lab.nsntrace([&["-o", "x.pcapng"], options, program].concat())?.run()?.exited(0)
}

fn python(lab: &Lab, script: &str, arguments: &[&str]) -> Result<Done> {
    run(lab, &[], &[&["python3", "-c", script], arguments].concat())
}

fn every_packet_of_a_download(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let script = r#"curl -s -o page "$1" & echo "curl $!"; wait"#;
    let done = run(lab, &[], &["sh", "-c", script, "sh", &web.url])?;
    let pid = printed(&done, "curl")?;
    let owners = owners(&done, "tcp")?;
    ensure!(owners.len() > 20, "{} packets", owners.len());
    ensure!(owners.iter().all(|owner| *owner == format!("pid {pid} curl")), "{owners:?}");
    // What asks for addresses on the link belongs to nobody.
    assert!(self::owners(&done, "!tcp")?.iter().all(String::is_empty));
    // A reader of the numbers finds the same.
    let file = Pcapng::read(&done.dir.join("x.pcapng"))?;
    let number: u32 = pid.parse()?;
    let known: Vec<_> = file.packets.iter().filter_map(|packet| packet.process).collect();
    assert_eq!(known, vec![number; owners.len()]);
    Ok(())
}

fn both_families_and_protocols(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let (_echo, _echo6) = (lab.udp_echo(7)?, lab.udp_echo6(7)?);
    let (web, web6) = (lab.web()?, lab.web6()?);
    let script = r#"
        for address in "$1" "$2"; do
            busybox ping -c 3 "$address" >/dev/null & echo "ping $!"; wait
            python3 -c "$3" udp "$address" 7 20 >/dev/null & echo "ask $!"; wait
        done
        for url in "$4" "$5"; do curl -s -o page "$url" & echo "curl $!"; wait; done"#;
    let script_of_ask = ask::ask("udp", "", "")[2];
    let words =
        ["sh", "-c", script, "sh", SERVER_ADDRESS, SERVER_ADDRESS6, script_of_ask, &web.url, &web6.url];
    let done = run(lab, &[], &words)?;
    let text = done.text();
    let pids: Vec<_> = text.lines().filter_map(|line| line.split_once(' ')).map(|(_, pid)| pid).collect();
    let [ping, ask, ping6, ask6, curl, curl6] = pids[..] else { panic!("{text}") };
    all(&done, "icmp", 6, &format!("pid {ping} busybox"))?;
    all(&done, "icmpv6.type == 128 || icmpv6.type == 129", 6, &format!("pid {ping6} busybox"))?;
    all(&done, "udp.port == 7 && ip", 2, &format!("pid {ask} python3"))?;
    all(&done, "udp.port == 7 && ipv6", 2, &format!("pid {ask6} python3"))?;
    for (filter, pid) in [("tcp && ip", curl), ("tcp && ipv6", curl6)] {
        let owners = owners(&done, filter)?;
        ensure!(owners.len() > 20, "{} packets", owners.len());
        ensure!(owners.iter().all(|owner| *owner == format!("pid {pid} curl")), "{filter}: {owners:?}");
    }
    assert!(owners(&done, "arp || icmpv6.type >= 130")?.iter().all(String::is_empty));
    Ok(())
}

/// Whatever the packet that a message tells of looks like: the identification in its header is drawn.
fn messages_about_closed_connections(lab: &Lab) -> Result<()> {
    lab.host(["sysctl", "-qw", "net.ipv4.icmp_ratelimit=0"])?.output()?;
    let script = "
import os, socket, sys
messages = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
messages.settimeout(30)
print('python', os.getpid(), flush=True)
for _ in range(32):
    closed = socket.socket()
    closed.setblocking(False)
    closed.connect_ex((sys.argv[1], 80))
    closed.close()
left = 32
while left:
    left -= messages.recv(100)[20] == 3
";
    let done = python(lab, script, &[NOBODY])?;
    all(&done, "icmp.type == 3", 32, &format!("pid {} python3", printed(&done, "python")?))
}

/// Serves each of three connections by a child, which answers with its number; then ends.
const FORKING: &str = "
import os, socket
server = socket.create_server(('0.0.0.0', 8000), backlog=8)
print('listening', flush=True)
for _ in range(3):
    connection, _ = server.accept()
    if os.fork() == 0:
        server.close()
        connection.recv(100)
        connection.sendall(str(os.getpid()).encode())
        connection.close()
        os._exit(0)
    connection.close()
    os.wait()
";

fn forking_server(lab: &Lab) -> Result<()> {
    let words = ["-o", "x.pcapng", "-p", "8000", "python3", "-c", FORKING];
    let server = ask::start(lab.nsntrace(words)?)?;
    let mut children = Vec::new();
    for _ in 0..3 {
        let child = lab.internet(ask::ask("tcp", HOST_ADDRESS, "8000"))?.output()?;
        children.push(child.trim().to_owned());
    }
    let done = server.wait()?.exited(0)?;
    assert_eq!(children.iter().collect::<HashSet<_>>().len(), 3);
    let streams =
        done.trace_at("x.pcapng").fields("tcp.flags.syn == 1 && tcp.flags.ack == 0", &["tcp.stream"])?;
    assert_eq!(streams.len(), 3);
    let listeners = owners(&done, "tcp.flags.syn == 1")?;
    let listener = &listeners[0];
    assert!(listener.ends_with(" python3") && listeners == vec![listener.as_str(); 6], "{listeners:?}");
    for (stream, child) in children.iter().enumerate() {
        let child = format!("pid {child} python3");
        assert_ne!(*listener, child);
        let stream = format!("tcp.stream == {stream}");
        // From the answer on it is the child's, whichever way packets go.
        let owners = owners(&done, &stream)?;
        let answer = format!("{stream} && tcp.srcport == 8000 && tcp.len > 0");
        all(&done, &answer, 1, &child)?;
        let first = owners.iter().position(|owner| *owner == child).context("nothing of the child's")?;
        assert!(owners[..first].iter().all(|owner| owner == listener), "{owners:?}");
        assert!(owners[first..].iter().all(|owner| *owner == child), "{owners:?}");
    }
    Ok(())
}

/// A parent and its child send a word each by the same sockets, and get an answer to each.
const INHERITED: &str = "
import os, socket, sys
tcp = socket.create_connection((sys.argv[1], 7000))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect((sys.argv[1], 7))
def speak(word):
    print(word, os.getpid(), flush=True)
    for connection in tcp, udp:
        connection.sendall(word.encode())
        assert connection.recv(100) == word.encode()
speak('before')
if os.fork() == 0:
    speak('child')
    os._exit(0)
os.wait()
speak('after')
";

/// Sends back what comes by TCP.
const ECHO: &str = "
import socket, sys
server = socket.create_server((sys.argv[1], 7000))
print('listening', flush=True)
while True:
    connection, _ = server.accept()
    while data := connection.recv(1000):
        connection.sendall(data)
";

fn inherited_sockets(lab: &Lab) -> Result<()> {
    let _echo = ask::start(lab.internet(["python3", "-c", ECHO, SERVER_ADDRESS])?)?;
    let _udp = lab.udp_echo(7)?;
    let done = python(lab, INHERITED, &[SERVER_ADDRESS])?;
    for word in ["before", "child", "after"] {
        let owner = format!("pid {} python3", printed(&done, word)?);
        // The word and its echo.
        all(&done, &format!("tcp.len > 0 && frame contains \"{word}\""), 2, &owner)?;
        all(&done, &format!("udp && frame contains \"{word}\""), 2, &owner)?;
    }
    let [before, child] = ["before", "child"].map(|word| printed(&done, word));
    assert_ne!(before?, child?);
    Ok(())
}

/// Sends a word, then becomes a shell that sends another by the same socket.
const EXECUTES: &str = "
import os, socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect((sys.argv[1], 9))
udp.send(b'before')
os.dup2(udp.fileno(), 9)
print('pid', os.getpid(), flush=True)
os.execv('/bin/sh', ['sh', '-c', 'printf after >&9'])
";

fn program_that_executes_another(lab: &Lab) -> Result<()> {
    let _sink = lab.udp_sink(9)?;
    let done = python(lab, EXECUTES, &[SERVER_ADDRESS])?;
    let pid = printed(&done, "pid")?;
    all(&done, "udp && frame contains \"before\"", 1, &format!("pid {pid} python3"))?;
    all(&done, "udp && frame contains \"after\"", 1, &format!("pid {pid} sh"))
}

/// Becomes a daemon that asks for something when its parents have ended.
const DAEMON: &str = "
import os, socket, sys
read, write = os.pipe()
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.close(write)
os.read(read, 1)
print('daemon', os.getpid(), flush=True)
client = socket.create_connection((sys.argv[1], 7000))
client.sendall(b'word')
client.recv(100)
";

pub fn daemon(lab: &Lab) -> Result<()> {
    let _echo = ask::start(lab.internet(["python3", "-c", ECHO, SERVER_ADDRESS])?)?;
    let done = python(lab, DAEMON, &[SERVER_ADDRESS])?;
    let owner = format!("pid {} python3", printed(&done, "daemon")?);
    let owners = owners(&done, "tcp")?;
    assert!(owners.len() >= 8 && owners.iter().all(|found| *found == owner), "{owners:?}");
    Ok(())
}

/// Two processes use one socket without a peer, to several.
const UNCONNECTED: &str = "
import os, socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def speak(word, port):
    print(word, os.getpid(), flush=True)
    udp.sendto(word.encode(), (sys.argv[1], port))
    assert udp.recv(100) == word.encode()
speak('first', 7)
if os.fork() == 0:
    speak('second', 8)
    os._exit(0)
os.wait()
speak('third', 7)
";

fn unconnected_datagrams(lab: &Lab) -> Result<()> {
    let _servers = (lab.udp_echo(7)?, lab.udp_echo(8)?);
    let done = python(lab, UNCONNECTED, &[SERVER_ADDRESS])?;
    for word in ["first", "second", "third"] {
        let owner = format!("pid {} python3", printed(&done, word)?);
        all(&done, &format!("udp && frame contains \"{word}\""), 2, &owner)?;
    }
    Ok(())
}

/// Each sends its own number.
fn short_lived_processes(lab: &Lab) -> Result<()> {
    let _sink = lab.udp_sink(9)?;
    let each = format!("echo $$ >/dev/udp/{SERVER_ADDRESS}/9");
    let script = r#"for number in $(seq 200); do bash -c "$1"; done"#;
    let done = run(lab, &[], &["sh", "-c", script, "sh", &each])?;
    let packets = done.trace_at("x.pcapng").fields("udp", &["udp.payload", "frame.comment"])?;
    assert_eq!(packets.len(), 200);
    let mut pids = HashSet::new();
    for packet in &packets {
        let pid = text(&packet[0])?;
        assert_eq!(packet[1], format!("pid {} bash", pid.trim()));
        pids.insert(pid);
    }
    assert_eq!(pids.len(), 200);
    Ok(())
}

/// Of hexadecimal digits.
fn text(hex: &str) -> Result<String> {
    let byte = |at: usize| Ok(u8::from_str_radix(&hex[at..at + 2], 16)?);
    let bytes: Result<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    Ok(String::from_utf8(bytes?)?)
}

/// Nobody listens there: an error comes by ICMP, and a reset by TCP.
fn answers_from_a_closed_port(lab: &Lab) -> Result<()> {
    let script = r#"
        python3 -c "$1" udp "$2" 999 20 & echo "udp $!"; wait
        python3 -c "$1" tcp "$2" 999 20 & echo "tcp $!"; wait"#;
    let done = run(lab, &[], &["sh", "-c", script, "sh", ask::ask("udp", "", "")[2], SERVER_ADDRESS])?;
    let udp = format!("pid {} python3", printed(&done, "udp")?);
    all(&done, "udp && !icmp", 1, &udp)?;
    all(&done, "icmp.type == 3", 1, &udp)?;
    all(&done, "tcp", 2, &format!("pid {} python3", printed(&done, "tcp")?))?;
    // And the other way round: what the program's own kernel answers is nobody's.
    let script = "echo listening; read line";
    let words = ["-o", "x.pcapng", "-p", "8000", "-p", "8000/udp", "sh", "-c", script];
    let mut run = lab.nsntrace(words)?.told().spawn()?;
    run.says("listening")?;
    for transport in ["tcp", "udp"] {
        let error = lab.internet(ask::ask(transport, HOST_ADDRESS, "8000"))?.output()?;
        assert_eq!(error, "ConnectionRefusedError\n", "{transport}");
    }
    run.stdin_pipe()?.write_all(b"\n")?;
    let done = run.wait()?.exited(0)?;
    all(&done, "tcp.flags.syn == 1 || tcp.flags.reset == 1 || udp || icmp", 4, "")
}

/// Takes a connection to its end at the other side, tells by a datagram when that is, and ends its own side when a datagram
/// comes.
const LATE: &str = "
import socket, sys
server = socket.create_server((sys.argv[1], 7000))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], 7))
print('listening', flush=True)
connection, _ = server.accept()
while connection.recv(100):
    pass
_, who = udp.recvfrom(100)
connection.close()
udp.sendto(b'closed', who)
";

/// The client ends before the server does: the last of its acknowledgements comes when it is gone.
fn last_packet_of_a_connection(lab: &Lab) -> Result<()> {
    let _server = ask::start(lab.internet(["python3", "-c", LATE, SERVER_ADDRESS])?)?;
    let client = "import socket, sys; socket.create_connection((sys.argv[1], 7000))";
    let script = r#"
        python3 -c "$1" "$3" & echo "client $!"; wait
        python3 -c "$2" udp "$3" 7 20 & echo "other $!"; wait"#;
    let words = ["sh", "-c", script, "sh", client, ask::ask("udp", "", "")[2], SERVER_ADDRESS];
    let done = run(lab, &[], &words)?;
    assert!(done.text().contains("closed"), "{}", done.text());
    let client = format!("pid {} python3", printed(&done, "client")?);
    assert_eq!(done.trace_at("x.pcapng").ends()?.len(), 2);
    let owners = owners(&done, "tcp")?;
    ensure!(owners.len() >= 7 && owners.iter().all(|owner| *owner == client), "{owners:?}");
    all(&done, "udp", 2, &format!("pid {} python3", printed(&done, "other")?))
}

/// Makes a SYN by itself and sends it by a socket of a kind that says nothing of TCP. The kernel knows of no such connection:
/// it resets it when the answer comes.
const SYN: &str = "
import os, socket, struct, sys
local, remote, kind = sys.argv[1:]
def sum16(data):
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return 0xffff - total
addresses = socket.inet_aton(local) + socket.inet_aton(remote)
tcp = [4000, 80, 1, 0, 5 << 4, 2, 1000, 0, 0]
form = '!HHIIBBHHH'
pseudo = addresses + struct.pack('!BBH', 0, 6, 20)
tcp[7] = sum16(pseudo + struct.pack(form, *tcp))
segment = struct.pack(form, *tcp)
ip = [0x45, 0, 40, 1, 0, 64, 6, 0]
ip[7] = sum16(struct.pack('!BBHHHBBH', *ip) + addresses)
packet = struct.pack('!BBHHHBBH', *ip) + addresses + segment
print('syn', os.getpid(), flush=True)
listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
listener.settimeout(20)
if kind == 'raw':
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sender.sendto(packet, (remote, 0))
else:
    device = [name for _, name in socket.if_nameindex() if name.startswith('nscap')][0]
    mac = bytes.fromhex(sys.stdin.readline().strip().replace(':', ''))
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
    sender.sendto(packet, (device, 0x0800, 0, 0, mac))
# Until the kernel's reset has gone out.
while True:
    data, where = listener.recvfrom(2000)
    if where[2] == socket.PACKET_OUTGOING and data[9:10] == b'\\6' and data[33] & 4:
        break
";

/// The SYN, its answer, and the kernel's reset.
fn spoken(done: &Done) -> Result<()> {
    let owner = format!("pid {} python3", printed(done, "syn")?);
    all(done, "tcp", 3, &owner)?;
    all(done, "tcp.flags.reset == 1", 1, &owner)?;
    assert!(owners(done, "arp")?.iter().all(String::is_empty));
    Ok(())
}

fn raw_sockets(lab: &Lab) -> Result<()> {
    let _web = lab.web()?;
    let script = r#"exec python3 -c "$1" "$(hostname -I | tr ' ' '\n' | grep -m 1 172)" "$2" raw"#;
    spoken(&run(lab, &[], &["sh", "-c", script, "sh", SYN, SERVER_ADDRESS])?)
}

fn packet_sockets(lab: &Lab) -> Result<()> {
    let _web = lab.web()?;
    // Another asks for the gateway's address on the link.
    let script = r#"
        busybox ping -c 1 172.16.42.254 >/dev/null
        ip neighbour show to 172.16.42.254 | grep -o 'lladdr [^ ]*' | cut -d ' ' -f 2 |
            python3 -c "$1" "$(hostname -I | tr ' ' '\n' | grep -m 1 172)" "$2" packet"#;
    spoken(&run(lab, &[], &["sh", "-c", script, "sh", SYN, SERVER_ADDRESS])?)
}

/// Eight downloads at the same time: each packet belongs to the process whose port it has.
fn several_at_once(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let script = r#"
        for number in $(seq 8); do
            curl -s -o "page$number" --local-port "500$number" "$1" & echo "curl$number $!"
        done; wait"#;
    let done = run(lab, &[], &["sh", "-c", script, "sh", &web.url])?;
    for number in 1..=8 {
        let owner = format!("pid {} curl", printed(&done, &format!("curl{number}"))?);
        let owners = owners(&done, &format!("tcp.port == 500{number}"))?;
        ensure!(owners.len() > 20, "{} packets", owners.len());
        ensure!(owners.iter().all(|found| *found == owner), "{owner}: {owners:?}");
        assert!(fs::read(done.dir.join(format!("page{number}")))? == web.body);
    }
    Ok(())
}

/// By the types of the programs that the tracer holds, as /proc tells them.
fn nothing_is_loaded_for_a_pcap(lab: &Lab) -> Result<()> {
    const CGROUP_SOCK: &str = "9";
    const RAW_TRACEPOINT: &str = "17";
    const CLASSIFIER: &str = "3";
    for (file, hooks) in [("x.pcap", false), ("x.pcapng", true)] {
        let mut run = lab.nsntrace(["-o", file, "sh", "-c", "echo started; read line"])?.told().spawn()?;
        run.says("started")?;
        let types = program_types(&run)?;
        assert!(types.contains(CLASSIFIER), "{types:?}");
        for hook in [CGROUP_SOCK, RAW_TRACEPOINT] {
            assert_eq!(types.contains(hook), hooks, "{file}: {types:?}");
        }
        run.stdin_pipe()?.write_all(b"\n")?;
        run.wait()?.exited(0)?;
    }
    Ok(())
}

fn program_types(run: &Running) -> Result<HashSet<String>> {
    let mut types = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", run.pid()))? {
        // One may be closed meanwhile.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        types.extend(
            text.lines().filter_map(|line| line.strip_prefix("prog_type:")).map(|kind| kind.trim().into()),
        );
    }
    Ok(types)
}
