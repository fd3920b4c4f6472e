//! Name look-ups that go to the host's own name servers: they cross the link, and come to who asked.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{Done, Lab, SERVER_ADDRESS, SOON, Server, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    server_on_loopback,
    server_on_ipv6_loopback,
    server_on_a_link,
    server_on_an_own_address,
    server_that_is_reached_is_left_alone,
    public_servers,
    large_answers,
    pipelined_questions,
    idle_connections,
    thousand_questions_of_fifty_processes,
    answers_of_others_are_ignored,
    others_are_not_served,
    listener_on_every_address,
    firewall_that_lets_nothing_in,
    server_that_refuses,
    server_that_is_silent,
    server_after_a_silent_one,
    another_user,
    tracer_is_killed,
];

/// The gateway's address, where the program asks.
const GATEWAY: &str = "172.16.42.254";

/// The address of `www.example.test`, unless another one is said.
pub const WWW: &str = "--host-record=www.example.test,203.0.113.7";

pub fn write_resolv_conf(lab: &Lab, text: &str) -> Result<()> {
    lab.host(["sh", "-c", "cat > /etc/resolv.conf"])?.input(text.as_bytes())?.output().map(drop)
}

/// A dnsmasq on a loopback address, which the host's resolv.conf names.
fn loopback_server(lab: &Lab, options: &[&str]) -> Result<Server> {
    write_resolv_conf(lab, "nameserver 127.0.0.53\n")?;
    let listen = ["--bind-interfaces", "--listen-address=127.0.0.53"];
    lab.host_name_server("127.0.0.53", &[&listen, options].concat())
}

/// A program that looks a name up in every way, with what it has to print in the end.
const LOOK_UP: &str = r#"
getent ahostsv4 www.example.test | cut -d' ' -f1 | head -1
python3 -c 'import socket; print(socket.getaddrinfo("www.example.test", 80, socket.AF_INET)[0][4][0])'
dig +short www.example.test
dig +short +tcp www.example.test
"#;

fn finds_the_server(lab: &Lab) -> Result<Done> {
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["sh", "-c", LOOK_UP])?.run()?.exited(0)?;
    let found: Vec<_> = done.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    ensure!(found == [SERVER_ADDRESS.as_bytes(); 4], "found {:?}; stderr:\n{}", done.text(), done.stderr);
    lab.assert_clean(&before)?;
    Ok(done)
}

/// Every question and its answer is in the trace, between the program and the gateway's port 53.
fn is_all_in_the_trace(done: &Done) -> Result<()> {
    let trace = done.trace();
    for protocol in ["udp", "tcp"] {
        let questions = format!("dns.flags.response == 0 && ip.dst == {GATEWAY} && {protocol}.dstport == 53");
        let answers = format!("dns.flags.response == 1 && ip.src == {GATEWAY} && {protocol}.srcport == 53");
        let (questions, answers) = (trace.count_of(&questions)?, trace.count_of(&answers)?);
        ensure!(answers > 0 && questions >= answers, "{protocol}: {questions} questions, {answers} answers");
    }
    let elsewhere = format!("dns && !(ip.addr == {GATEWAY} && (udp.port == 53 || tcp.port == 53))");
    ensure!(trace.count_of(&elsewhere)? == 0, "there are look-ups past the gateway");
    Ok(())
}

pub fn server_on_loopback(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let _server = loopback_server(lab, &[WWW])?;
    let done = finds_the_server(lab)?;
    is_all_in_the_trace(&done)?;
    let url = "http://www.example.test/data.bin";
    let done = lab.nsntrace(["curl", "-s", "-S", "-m", "20", url])?.run()?.exited(0)?;
    assert!(done.stdout == web.body);
    Ok(())
}

fn server_on_ipv6_loopback(lab: &Lab) -> Result<()> {
    write_resolv_conf(lab, "nameserver ::1\n")?;
    let _server = lab.host_name_server("[::1]", &["--bind-interfaces", "--listen-address=::1", WWW])?;
    is_all_in_the_trace(&finds_the_server(lab)?)
}

/// As routers announce them: the address means something together with the device only.
fn server_on_a_link(lab: &Lab) -> Result<()> {
    lab.host(["ip", "address", "add", "fe80::1/64", "dev", "eth1", "nodad"])?.output()?;
    lab.internet(["ip", "address", "add", "fe80::53/64", "dev", "inet0", "nodad"])?.output()?;
    let _server = lab.name_server_with("10.99.0.2", &["--interface=inet0"])?;
    write_resolv_conf(lab, "nameserver fe80::53%eth1\n")?;
    is_all_in_the_trace(&finds_the_server(lab)?)
}

/// It answers the host, and a firewall keeps others from it.
fn server_on_an_own_address(lab: &Lab) -> Result<()> {
    write_resolv_conf(lab, "nameserver 10.99.0.1\n")?;
    let _server =
        lab.host_name_server("10.99.0.1", &["--bind-interfaces", "--listen-address=10.99.0.1", WWW])?;
    lab.sh("iptables -P INPUT DROP; iptables -A INPUT -i lo -j ACCEPT")?;
    is_all_in_the_trace(&finds_the_server(lab)?)
}

fn server_that_is_reached_is_left_alone(lab: &Lab) -> Result<()> {
    let text = "search example.test\nnameserver 203.0.113.7 # the one\n";
    write_resolv_conf(lab, text)?;
    let _server = lab.name_server()?;
    let script = "cat /etc/resolv.conf; getent ahostsv4 www";
    let done = lab.nsntrace(["sh", "-c", script])?.run()?.exited(0)?;
    assert!(done.text().starts_with(text), "{}", done.text());
    assert!(done.trace().count_of("dns && ip.addr == 203.0.113.7")? > 0);
    Ok(())
}

fn public_servers(lab: &Lab) -> Result<()> {
    lab.internet(["ip", "address", "add", "9.9.9.9/32", "dev", "lo"])?.output()?;
    let _server = lab.name_server_with("9.9.9.9", &["--listen-address=9.9.9.9"])?;
    write_resolv_conf(lab, "nameserver 127.0.0.53\nsearch example.test\noptions ndots:1\n")?;
    let before = lab.snapshot()?;
    let script = "grep -v '#' /etc/resolv.conf; getent ahostsv4 www | head -1 | cut -d' ' -f1";
    let done = lab.nsntrace(["--use-public-dns", "sh", "-c", script])?.run()?.exited(0)?;
    let expected = "nameserver 9.9.9.9\nnameserver 1.1.1.1\nnameserver 8.8.8.8\nnameserver 208.67.222.222\n\
                    search example.test\noptions ndots:1\n203.0.113.7\n";
    assert_eq!(done.text(), expected);
    assert!(done.trace().count_of("dns && ip.addr == 9.9.9.9")? > 0);
    lab.assert_clean(&before)
}

/// A TXT record of so many strings of 250 bytes.
fn text_record(name: &str, strings: usize) -> String {
    format!("--txt-record={name}.example.test{}", format!(",{}", "x".repeat(250)).repeat(strings))
}

fn large_answers(lab: &Lab) -> Result<()> {
    let (large, huge) = (text_record("large", 16), text_record("huge", 80));
    let _server = loopback_server(lab, &["--edns-packet-max=4096", &large, &huge])?;
    let script = "dig +ignore +bufsize=4096 TXT large.example.test; dig +bufsize=4096 TXT huge.example.test";
    let done = lab.nsntrace(["sh", "-c", script])?.run()?.exited(0)?;
    let text = done.text();
    let sizes: Vec<u32> =
        text.lines().filter_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: ")?.parse().ok()).collect();
    let [large, huge] = sizes[..] else { anyhow::bail!("not two answers:\n{text}") };
    ensure!((4016..=4096).contains(&large), "{large} bytes by UDP");
    ensure!(huge > 20_000, "{huge} bytes by TCP");
    let trace = done.trace();
    ensure!(
        trace.count_of("udp.srcport == 53 && dns.flags.truncated == 1")? == 1,
        "the cut answer did not pass"
    );
    ensure!(trace.count_of("tcp.srcport == 53 && dns.count.answers == 1")? == 1);
    Ok(())
}

/// Many questions on one connection, none of which waits for an answer.
const PIPELINE: &str = r#"
import socket, struct
def question(n):
    name = b"".join(bytes([len(l)]) + l for l in (b"n-10-7-0-%d" % n, b"number", b"test")) + b"\0"
    message = struct.pack("!6H", n, 0x100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1)
    return struct.pack("!H", len(message)) + message
stream = socket.create_connection(("172.16.42.254", 53), 30)
data = b"".join(map(question, range(1, 101)))
stream.sendall(data[:7]); stream.sendall(data[7:])
stream.shutdown(socket.SHUT_WR)
read = stream.makefile("rb").read()
right = 0
while read:
    length, = struct.unpack("!H", read[:2])
    message, read = read[2:2 + length], read[2 + length:]
    right += message[-4:] == bytes([10, 7, 0, struct.unpack("!H", message[:2])[0]])
print(right, "right")
"#;

const NUMBERS: &str = "--synth-domain=number.test,10.7.0.0/16,n-";

fn pipelined_questions(lab: &Lab) -> Result<()> {
    let _server = loopback_server(lab, &[NUMBERS])?;
    let text = lab.nsntrace(["-q", "python3", "-c", PIPELINE])?.output()?;
    assert_eq!(text, "100 right\n");
    Ok(())
}

/// More than are served at once, and all of them silent: they cost nobody else anything.
const IDLE: &str = r#"
import socket
idle = [socket.create_connection(("172.16.42.254", 53), 30) for _ in range(100)]
print(socket.getaddrinfo("www.example.test", 80, socket.AF_INET)[0][4][0])
"#;

fn idle_connections(lab: &Lab) -> Result<()> {
    let _server = loopback_server(lab, &[WWW])?;
    let before = lab.snapshot()?;
    let text = lab.nsntrace(["-q", "python3", "-c", IDLE])?.output()?;
    assert_eq!(text.trim_end(), SERVER_ADDRESS);
    lab.assert_clean(&before)
}

/// Each number has an address of its own.
const THOUSAND: &str = r#"
import os, socket, sys
def ask(process):
    wrong = 0
    for n in range(20):
        address = "10.7.%d.%d" % (process, n + 1)
        name = "n-" + address.replace(".", "-") + ".number.test"
        found = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
        wrong += found != address
    return wrong
children = []
for process in range(50):
    pid = os.fork()
    if pid == 0:
        os._exit(ask(process))
    children.append(pid)
print([os.waitpid(pid, 0)[1] for pid in children] == [0] * 50)
"#;

fn thousand_questions_of_fifty_processes(lab: &Lab) -> Result<()> {
    let _server = loopback_server(lab, &[NUMBERS, "--dns-forward-max=1000"])?;
    let done = lab.nsntrace(["python3", "-c", THOUSAND])?.run()?.exited(0)?;
    ensure!(done.text() == "True\n", "{}\n{}", done.text(), done.stderr);
    let questions = done.trace().count_of("dns.flags.response == 0 && udp.dstport == 53")?;
    let answers = done.trace().count_of("dns.flags.response == 1 && udp.srcport == 53 && dns.a")?;
    ensure!(questions >= 1000 && answers >= 1000, "{questions} questions, {answers} answers");
    Ok(())
}

/// Before the true answer come one from another port, and one with another id.
const LIAR: &str = r#"
import socket, struct, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
other.bind((sys.argv[1], 0))
def answer(query, address):
    end = query.index(b"\0", 12) + 5
    head = query[:2] + struct.pack("!5H", 0x8580, 1, 1, 0, 0)
    return head + query[12:end] + struct.pack("!3HIH", 0xc00c, 1, 1, 60, 4) + socket.inet_aton(address)
while True:
    query, sender = server.recvfrom(65535)
    other.sendto(answer(query, "10.6.6.6"), sender)
    server.sendto(b"\0\0" + answer(query, "10.6.6.6")[2:], sender)
    server.sendto(b"short", sender)
    server.sendto(query, sender)
    server.sendto(answer(query, "203.0.113.7"), sender)
"#;

fn answers_of_others_are_ignored(lab: &Lab) -> Result<()> {
    write_resolv_conf(lab, "nameserver 127.0.0.53\n")?;
    let _server = lab.host_python(LIAR, "127.0.0.53", 53)?;
    // An id of zero would be the liar's own.
    let done = lab.nsntrace(["dig", "+short", "+qid=4711", "www.example.test"])?.run()?.exited(0)?;
    assert_eq!(done.text().trim_end(), SERVER_ADDRESS);
    assert_eq!(done.trace().count_of("dns.flags.response == 1")?, 1, "a lie has come through");
    Ok(())
}

/// Asks by these ports of the relay's. Who is not on the link is told by the kernel that nobody is there; the host itself
/// counts as being on it.
const ASK: &str = r#"
import socket, sys
query = bytes.fromhex("12340100000100000000000006737472616e676504746573740000010001")
for kind, port in zip((socket.SOCK_STREAM, socket.SOCK_DGRAM), sys.argv[1:]):
    asker = socket.socket(socket.AF_INET, kind)
    asker.settimeout(30)
    try:
        asker.connect(("172.16.42.254", int(port)))
        asker.send(query)
        if kind == socket.SOCK_STREAM or "wait" in sys.argv:
            print(asker.recv(512))
    except ConnectionRefusedError:
        print("refused")
    except ConnectionResetError:
        print(b"")
"#;

fn others_are_not_served(lab: &Lab) -> Result<()> {
    let server = loopback_server(lab, &[WWW, "--log-queries", "--log-facility=-"])?;
    let script = "echo ready; read line; getent ahostsv4 www.example.test";
    let mut run = lab.nsntrace(["sh", "-c", script])?.told().spawn()?;
    run.says("ready")?;
    lab.internet(["ip", "route", "add", GATEWAY, "via", "10.99.0.1"])?.output()?;
    let port = |kind| -> Result<String> {
        let listening = lab.host(["ss", "-Hln", kind, "src", GATEWAY])?.output()?;
        let port = listening.split(GATEWAY).nth(1).and_then(|rest| rest.split([':', ' ']).nth(1));
        port.map(String::from).context(listening.clone())
    };
    let (tcp, udp) = (port("-t")?, port("-u")?);
    let outside = lab.internet(["python3", "-c", ASK, &tcp, &udp, "wait"])?.output()?;
    assert_eq!(outside, "refused\nrefused\n");
    assert_eq!(lab.host(["python3", "-c", ASK, &tcp, &udp])?.output()?, "b''\n");
    // What comes after it is answered: it was thrown away by then.
    writeln!(run.stdin_pipe()?)?;
    run.wait()?.exited(0)?;
    let log = server.process.stderr()?;
    assert!(log.contains("www.example.test") && !log.contains("strange"), "{log}");
    Ok(())
}

/// Without --bind-interfaces dnsmasq listens there, and takes no notice of what comes to other addresses than its own.
fn listener_on_every_address(lab: &Lab) -> Result<()> {
    write_resolv_conf(lab, "nameserver 127.0.0.1\n")?;
    let _server = lab.host_name_server("0.0.0.0", &["--listen-address=127.0.0.1", WWW])?;
    is_all_in_the_trace(&finds_the_server(lab)?)
}

fn firewall_that_lets_nothing_in(lab: &Lab) -> Result<()> {
    let _server = loopback_server(lab, &[WWW])?;
    let rules = "iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -j DROP; iptables -P INPUT DROP";
    lab.sh(rules)?;
    is_all_in_the_trace(&finds_the_server(lab)?)
}

/// Nobody listens there: it is said at once.
fn server_that_refuses(lab: &Lab) -> Result<()> {
    write_resolv_conf(lab, "nameserver 127.0.0.53\n")?;
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["dig", "+tries=1", "+time=30", "www.example.test"])?.run()?.exited(0)?;
    assert!(done.text().contains("status: SERVFAIL"), "{}", done.text());
    lab.nsntrace(["getent", "ahosts", "www.example.test"])?.run()?.exited(2)?;
    lab.nsntrace(["dig", "+tcp", "+tries=1", "+time=30", "www.example.test"])?.run()?.exited(9)?;
    lab.assert_clean(&before)
}

const SILENT: &str = r#"
import signal, socket, sys
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind((sys.argv[1], int(sys.argv[2])))
stream = socket.socket()
stream.bind((sys.argv[1], int(sys.argv[2])))
stream.listen()
signal.pause()
"#;

/// The program's own patience counts, and the trace ends with the program.
fn server_that_is_silent(lab: &Lab) -> Result<()> {
    write_resolv_conf(lab, "nameserver 127.0.0.53\noptions timeout:1 attempts:1\n")?;
    let _server = lab.host_python(SILENT, "127.0.0.53", 53)?;
    let before = lab.snapshot()?;
    let began = std::time::Instant::now();
    lab.nsntrace(["getent", "ahostsv4", "www.example.test"])?.run()?.exited(2)?;
    for transport in ["+notcp", "+tcp"] {
        lab.nsntrace(["dig", transport, "+tries=1", "+time=1", "www.example.test"])?.run()?.exited(9)?;
    }
    ensure!(began.elapsed() < SOON * 3, "it took {:?}", began.elapsed());
    lab.assert_clean(&before)
}

fn server_after_a_silent_one(lab: &Lab) -> Result<()> {
    let _server = loopback_server(lab, &[WWW])?;
    write_resolv_conf(lab, "nameserver 127.0.0.9\nnameserver 127.0.0.54\nnameserver 127.0.0.53\n")?;
    let _silent = lab.host_python(SILENT, "127.0.0.9", 53)?;
    let text = lab.nsntrace(["-q", "dig", "+short", "www.example.test"])?.output()?;
    assert_eq!(text.trim_end(), SERVER_ADDRESS);
    Ok(())
}

fn another_user(lab: &Lab) -> Result<()> {
    let _server = loopback_server(lab, &[WWW])?;
    // However the caller has it, the file is one that all may read.
    let script = r#"umask 077; exec "$0" "$@""#;
    let nsntrace =
        ["-q", "-u", "nobody", "-o", "-", "sh", "-c", "id -un >&2; getent ahostsv4 www.example.test >&2"];
    let done = lab.nsntrace_by(["sh", "-c", script], nsntrace)?.run()?.exited(0)?;
    assert!(done.stderr.contains("nobody") && done.stderr.contains(SERVER_ADDRESS), "{}", done.stderr);
    Ok(())
}

fn tracer_is_killed(lab: &Lab) -> Result<()> {
    let _server = loopback_server(lab, &[WWW])?;
    let before = lab.snapshot()?;
    let script = "getent ahostsv4 www.example.test > found; exec sleep 1000";
    let run = lab.nsntrace(["sh", "-c", script])?.spawn()?;
    let found = run.dir().join("found");
    until("an answer", SOON, || {
        Ok(fs::read_to_string(&found).unwrap_or_default().contains(SERVER_ADDRESS).then_some(()))
    })?;
    assert!(lab.snapshot()?.has(&["iptables filter", "INPUT", "nsntrace:"]), "no rule for the relay");
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    lab.assert_clean(&before)
}
