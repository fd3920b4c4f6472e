//! `--summary`: who talked to whom, by real programs, judged by what they did and by tshark.

use std::{fs, io::Write};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{
    Done, HOST_ADDRESS, Lab, SERVER_ADDRESS, SERVER_ADDRESS6, SOON, Summary, TlsVersions, Trace, ask,
    nsntrace_binary, until,
};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    web_by_name,
    tls_by_its_server_name,
    lookups_without_answer,
    attempts_that_fail,
    what_is_sent_again,
    every_protocol,
    whose_it_was,
    server_and_its_clients,
    what_already_runs,
    small_snapshots,
    every_way_to_end,
    every_way_to_write,
    own_loopback,
    hostile_names,
    flood_of_peers,
    width_and_colour,
    python_reads_it,
    wrong_form,
];

/// nsntrace with a summary for scripts, and this program.
fn summed(lab: &Lab, words: &[&str]) -> Result<(Done, Summary)> {
    let done = lab.nsntrace([&["--summary=json"], words].concat())?.run()?;
    let summary = Summary::of(&done)?;
    Ok((done, summary))
}

/// The packets in it are those in the trace.
fn is_complete(done: &Done, summary: &Summary) -> Result<()> {
    assert_eq!(summary.packets(), done.trace().count()?, "{summary:?}");
    Ok(())
}

fn web_by_name(lab: &Lab) -> Result<()> {
    let (_names, web) = (lab.name_server()?, lab.web()?);
    let (done, summary) = summed(lab, &["curl", "-s", "-o", "page", "http://www.example.test/data.bin"])?;
    let done = done.exited(0)?;
    is_complete(&done, &summary)?;
    let peer = summary.peer("tcp", 80)?;
    assert_eq!((peer.text("address")?, peer.text("role")?), (SERVER_ADDRESS, "client"));
    assert_eq!(peer.names()?, [("http", "www.example.test"), ("dns", "www.example.test")]);
    assert_eq!(peer.text("name")?, "www.example.test");
    ensure!(peer.number("bytes_received")? > web.body.len() as u64, "{peer:?}");
    let bytes = |filter: &str| -> Result<u64> {
        Ok(done.trace().packets(filter)?.iter().map(|packet| u64::from(packet.len)).sum())
    };
    assert_eq!(peer.number("bytes_sent")?, bytes("tcp.dstport == 80")?);
    assert_eq!(peer.number("bytes_received")?, bytes("tcp.srcport == 80")?);
    assert_eq!(peer.number("packets_sent")?, done.trace().count_of("tcp.dstport == 80")? as u64);
    assert_eq!((peer.number("connections")?, peer.failed()?), (1, 0));
    let resolver = summary.peer("udp", 53)?;
    assert_eq!((resolver.number("queries")?, resolver.number("queries_unanswered")?), (2, 0));
    // The one with most bytes is first.
    assert_eq!(summary.peers()[0].number("port")?, 80);
    Ok(())
}

fn tls_by_its_server_name(lab: &Lab) -> Result<()> {
    for versions in TlsVersions::ALL {
        let server = lab.https(443, versions)?;
        let resolve = format!("other.example.test:443:{SERVER_ADDRESS}");
        let url = "https://other.example.test/word.txt";
        let (done, summary) = summed(lab, &["curl", "-sk", "--resolve", &resolve, url])?;
        assert_eq!(done.text(), server.word);
        is_complete(&done, &summary)?;
        assert_eq!(summary.peer("tcp", 443)?.names()?, [("sni", "other.example.test")], "{versions:?}");
    }
    Ok(())
}

fn lookups_without_answer(lab: &Lab) -> Result<()> {
    let _names = lab.name_server_with("10.99.0.2", &["--listen-address=10.99.0.2"])?;
    let _deaf = lab.udp_sink(53)?;
    let program = r#"dig +short @10.99.0.2 www.example.test; dig +tcp +short @10.99.0.2 www.example.test
        dig +short @10.99.0.2 nowhere.example.test; dig +tries=1 +timeout=1 @"$1" slow.example.test
        exit 0"#;
    let (done, summary) = summed(lab, &["sh", "-c", program, "sh", SERVER_ADDRESS])?;
    is_complete(&done, &summary)?;
    let queries = |protocol: &str, address: &str| -> Result<(u64, u64)> {
        let peer = summary.peer_at(protocol, address)?;
        Ok((peer.number("queries")?, peer.number("queries_unanswered")?))
    };
    assert_eq!(queries("udp", "10.99.0.2")?, (2, 0));
    assert_eq!(queries("tcp", "10.99.0.2")?, (1, 0));
    assert_eq!(queries("udp", SERVER_ADDRESS)?, (1, 1));
    assert_eq!(summary.peer_at("udp", SERVER_ADDRESS)?.texts("unanswered_names")?, ["slow.example.test"]);

    let done = lab.nsntrace(["--summary", "sh", "-c", program, "sh", SERVER_ADDRESS])?.run()?;
    ensure!(done.stderr.contains("  unanswered: 1 of 1 query (slow.example.test)\n"), "{}", done.stderr);
    Ok(())
}

fn attempts_that_fail(lab: &Lab) -> Result<()> {
    let _web = lab.web()?;
    let rules = [
        "-I INPUT -p tcp --dport 82 -j DROP",
        "-I INPUT -p tcp --dport 83 -j REJECT --reject-with icmp-host-unreachable",
        "-I INPUT -p udp --dport 84 -j REJECT",
    ];
    for rule in rules {
        lab.internet(["iptables"].into_iter().chain(rule.split(' ')))?.output()?;
    }
    let program = r#"for port in 80 81 81 82 83; do curl -s -o page --max-time 1.5 "http://$1:$port/"; done
        python3 -c "
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(10)
client.connect((sys.argv[1], 84))
client.send(b'x')
client.recv(1)" "$1"
        exit 0"#;
    let (done, summary) = summed(lab, &["sh", "-c", program, "sh", SERVER_ADDRESS])?;
    let done = done.exited(0)?;
    is_complete(&done, &summary)?;
    let failures = |protocol: &str, port| -> Result<[u64; 4]> {
        let peer = summary.peer(protocol, port)?;
        let kinds = ["", "_refused", "_unanswered", "_unreachable"];
        let numbers = kinds.map(|kind| peer.number(&format!("connections{kind}")));
        Ok(numbers.into_iter().collect::<Result<Vec<_>>>()?.try_into().expect("four"))
    };
    assert_eq!(failures("tcp", 80)?, [1, 0, 0, 0]);
    assert_eq!(failures("tcp", 81)?, [2, 2, 0, 0]);
    assert_eq!(failures("tcp", 82)?, [1, 0, 1, 0]);
    assert_eq!(failures("tcp", 83)?, [1, 0, 0, 1]);
    assert_eq!(failures("udp", 84)?, [1, 0, 0, 1]);
    // A SYN without an answer is sent again.
    ensure!(summary.peer("tcp", 82)?.number("retransmissions_sent")? > 0, "{summary:?}");

    let done = lab.nsntrace(["--summary", "sh", "-c", program, "sh", SERVER_ADDRESS])?.run()?.exited(0)?;
    for (port, note) in [
        (81, "refused: 2 of 2"),
        (82, "no answer, 1 retransmission"),
        (83, "unreachable"),
        (84, "unreachable"),
    ] {
        let row = done.line_with(&format!("{SERVER_ADDRESS}:{port} "))?;
        ensure!(row.ends_with(&format!("  {note}")), "{row}");
    }
    let row = done.line_with(&format!("{SERVER_ADDRESS}:80 "))?;
    ensure!(row.trim_end().ends_with("s"), "{row}");
    Ok(())
}

/// Takes what comes up to its end, then sends 3 MB.
const MIRROR: &str = "
import socket, sys
server = socket.create_server((sys.argv[1], 80))
print('listening', flush=True)
while True:
    connection, _ = server.accept()
    while connection.recv(1 << 20):
        pass
    connection.sendall(bytes(3000000))
    connection.close()
";

/// The other side of it.
const UPLOAD: &str = "
import socket, sys
client = socket.create_connection((sys.argv[1], 80))
client.sendall(bytes(3000000))
client.shutdown(socket.SHUT_WR)
length = 0
while data := client.recv(1 << 20):
    length += len(data)
sys.exit(length != 3000000)
";

/// Of the large packets that pass there, one of eight is lost.
const LOSE: &str = "-p tcp -m length --length 500:65535 -m statistic --mode nth --every 8 --packet 3 -j DROP";

/// Packets to the server whose bytes were all in others before.
fn sent_again(trace: &Trace) -> Result<u64> {
    let (mut next, mut again) = (0, 0);
    for row in trace.fields("tcp.dstport == 80 and tcp.len > 0", &["tcp.nxtseq"])? {
        let end: u64 = row[0].parse()?;
        again += u64::from(end <= next);
        next = next.max(end);
    }
    Ok(again)
}

/// Segments are lost on the way there and on the way back.
fn what_is_sent_again(lab: &Lab) -> Result<()> {
    let _server = ask::start(lab.internet(["python3", "-c", MIRROR, SERVER_ADDRESS])?)?;
    lab.internet(format!("iptables -I INPUT {LOSE}").split(' '))?.output()?;
    lab.host(format!("iptables -t raw -I PREROUTING -i eth1 {LOSE}").split(' '))?.output()?;
    let (done, summary) = summed(lab, &["python3", "-c", UPLOAD, SERVER_ADDRESS])?;
    let done = done.exited(0)?;
    is_complete(&done, &summary)?;
    let peer = summary.peer("tcp", 80)?;
    let (sent, received) = (peer.number("retransmissions_sent")?, peer.number("retransmissions_received")?);
    let expected = sent_again(&done.trace())?;
    ensure!(sent > 0 && sent == expected, "{sent} sent again, and {expected} are in the trace");
    // What comes in may have been overtaken: tshark knows the time that the way takes, and tells those apart better.
    let again = "tcp.srcport == 80 and (tcp.analysis.retransmission or tcp.analysis.out_of_order)";
    let most = done.trace().count_of(again)? as u64;
    ensure!(received > 0 && received <= most, "{received} received again, and tshark finds {most}");
    Ok(())
}

fn every_protocol(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let (_echo, _echo6) = (lab.udp_echo(7)?, lab.udp_echo6(7)?);
    let _web = lab.web6()?;
    let program = r#"ping -c 2 "$1"; ping -c 1 "$2"; curl -s -o page "http://[$2]/"
        for address in "$1" "$2"; do python3 -c "
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
client = socket.socket(family, socket.SOCK_DGRAM)
client.connect((sys.argv[1], 7))
# It goes in fragments.
client.send(b'x' * 4000)
client.recv(65535)" "$address"; done"#;
    let (done, summary) = summed(lab, &["sh", "-c", program, "sh", SERVER_ADDRESS, SERVER_ADDRESS6])?;
    let done = done.exited(0)?;
    is_complete(&done, &summary)?;
    let sent = |protocol: &str, address: &str| -> Result<(u64, u64)> {
        let peer = summary.peer_at(protocol, address)?;
        Ok((peer.number("packets_sent")?, peer.number("packets_received")?))
    };
    assert_eq!(sent("icmp", SERVER_ADDRESS)?, (2, 2));
    assert_eq!(sent("icmpv6", SERVER_ADDRESS6)?, (1, 1));
    assert_eq!(sent("udp", SERVER_ADDRESS)?, (3, 3));
    assert_eq!(sent("udp", SERVER_ADDRESS6)?, (3, 3));
    assert_eq!(summary.peer_at("udp", SERVER_ADDRESS)?.number("connections")?, 1);
    assert_eq!(summary.peer("tcp", 80)?.text("address")?, SERVER_ADDRESS6);
    assert_eq!(summary.peers().len(), 5, "{summary:?}");
    Ok(())
}

/// Processes of the program's tree, each with its rows.
fn whose_it_was(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let program = r#"curl -s -o page "$1" & curl -s -o other "$1" & ping -c 1 "$2" & wait
        python3 -c "
import socket, sys
socket.create_connection((sys.argv[1], 80)).close()" "$2""#;
    let words = ["sh", "-c", program, "sh", &web.url, SERVER_ADDRESS];
    let (done, summary) = summed(lab, &words)?;
    is_complete(&done.exited(0)?, &summary)?;
    let of = |process: &str| summary.peer_of(process);
    let curl = of("curl")?;
    assert_eq!((curl.number("port")?, curl.number("connections")?), (80, 2));
    assert_eq!(curl.numbers("pids")?.len(), 2);
    assert_eq!((of("ping")?.text("protocol")?, of("ping")?.number("packets_received")?), ("icmp", 1));
    assert_eq!((of("python3")?.number("connections")?, of("python3")?.numbers("pids")?.len()), (1, 1));
    // The last acknowledgement has no socket, and is that of its connection.
    assert_eq!(summary.peers().len(), 3, "{summary:?}");

    let done = lab.nsntrace([&["--summary"], &words[..]].concat())?.run()?.exited(0)?;
    for (process, protocol) in [("curl", "tcp"), ("ping", "icmp"), ("python3", "tcp")] {
        let row = done.line_with(&format!("{process:<7}  {protocol:<5}  "))?;
        ensure!(row.contains(SERVER_ADDRESS), "{row}");
    }
    ensure!(done.stderr.contains("\nPROCESS  PROTO  REMOTE "), "{}", done.stderr);
    Ok(())
}

fn server_and_its_clients(lab: &Lab) -> Result<()> {
    let words = ["--summary=json", "-p", "8000", "python3", "-m", "http.server", "8000"];
    let server = lab.nsntrace(words)?.spawn()?;
    let url = format!("http://{HOST_ADDRESS}:8000/");
    until("the server", SOON, || {
        let page = lab.internet(["curl", "-s", "-o", "page", &url, &url])?.run()?;
        Ok(page.status.success().then_some(()))
    })?;
    server.signal(Signal::SIGTERM)?;
    let done = server.wait()?;
    let summary = Summary::of(&done)?;
    is_complete(&done, &summary)?;
    let peer = summary.peer("tcp", 8000)?;
    assert_eq!((peer.text("role")?, peer.text("address")?), ("server", "10.99.0.2"));
    assert_eq!(peer.text("process")?, "python3");
    let connections = done.trace().count_of("tcp.flags.syn == 1 and tcp.flags.ack == 0")?;
    assert_eq!(peer.number("connections")?, connections as u64);
    // It would be the server's own name.
    assert_eq!(peer.names()?, []);
    Ok(())
}

fn what_already_runs(lab: &Lab) -> Result<()> {
    let (_names, web) = (lab.name_server()?, lab.web()?);
    let cgroup = lab.cgroup("one")?;
    let path = cgroup.path().to_str().context("a path")?;
    let mut run = lab.nsntrace(["--summary=json", "--cgroup", path])?.spawn()?;
    run.complains("Use ctrl-c")?;
    let resolve = ["dig", "+short", &format!("@{SERVER_ADDRESS}"), "www.example.test"];
    lab.host_in(&cgroup, resolve)?.output()?;
    lab.host_in(&cgroup, ["curl", "-s", "-o", "page", &web.url])?.output()?;
    lab.host(["curl", "-s", "-o", "page", &format!("http://{SERVER_ADDRESS}:81/")])?.run()?;
    run.signal(Signal::SIGINT)?;
    let done = run.wait()?.exited(0)?;
    let summary = Summary::of(&done)?;
    is_complete(&done, &summary)?;
    assert_eq!(summary.peers().len(), 2, "{summary:?}");
    assert_eq!(summary.peer("tcp", 80)?.names()?, [("dns", "www.example.test")]);
    assert_eq!(summary.peer("udp", 53)?.number("queries")?, 1);
    assert_eq!(summary.peer("tcp", 80)?.text("process")?, "curl");
    Ok(())
}

/// Headers are enough to count.
fn small_snapshots(lab: &Lab) -> Result<()> {
    let _server = ask::start(lab.internet(["python3", "-c", MIRROR, SERVER_ADDRESS])?)?;
    lab.internet(format!("iptables -I INPUT {LOSE}").split(' '))?.output()?;
    for snaplen in ["80", "42"] {
        let (done, summary) = summed(lab, &["-s", snaplen, "python3", "-c", UPLOAD, SERVER_ADDRESS])?;
        let done = done.exited(0)?;
        is_complete(&done, &summary)?;
        let peer = summary.peer("tcp", 80)?;
        let bytes: u64 = done.trace().packets("ip")?.iter().map(|packet| u64::from(packet.len)).sum();
        assert_eq!(peer.number("bytes_sent")? + peer.number("bytes_received")?, bytes, "-s {snaplen}");
        let sent = peer.number("retransmissions_sent")?;
        // Where the flags were cut nobody tells.
        let expected = if snaplen == "80" { sent_again(&done.trace())? } else { 0 };
        ensure!(
            sent == expected && (expected > 0) == (snaplen == "80"),
            "-s {snaplen}: {sent}, not {expected}"
        );
    }
    Ok(())
}

fn every_way_to_end(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let (done, summary) = summed(lab, &["-c", "5", "curl", "-s", "-o", "page", &web.url])?;
    is_complete(&done.exited(0)?, &summary)?;
    assert_eq!(summary.packets(), 5);
    let (done, summary) = summed(lab, &["--duration", "0.3", "sh", "-c", "sleep 0.6; exit 3"])?;
    is_complete(&done.exited(3)?, &summary)?;
    let (done, summary) = summed(lab, &["sh", "-c", "kill -TERM $$"])?;
    is_complete(&done.exited(128 + 15)?, &summary)?;
    let (done, summary) = summed(lab, &["-q", "curl", "-s", "-o", "page", &web.url])?;
    is_complete(&done, &summary)?;
    assert_eq!(done.lines().len(), 1, "{}", done.stderr);
    // Nothing is told of what was not traced.
    let done = lab.nsntrace(["--summary=json", "-d", "nowhere", "true"])?.run()?;
    done.complaint().map(drop)
}

fn every_way_to_write(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let curl = ["curl", "-s", "-o", "page", &web.url];
    let run = |options: &[&str]| -> Result<(Done, Summary)> {
        let (done, summary) = summed(lab, &[options, &curl].concat())?;
        Ok((done.exited(0)?, summary))
    };
    let (done, summary) = run(&["-C", "1", "-o", "x.pcap"])?;
    let files: u64 = ["", "1", "2", "3"]
        .map(|number| done.trace_at(&format!("x.pcap{number}")))
        .iter()
        .filter(|trace| trace.path().exists())
        .map(|trace| trace.count())
        .sum::<Result<u64>>()?;
    assert_eq!(summary.packets(), files);
    // What a ring has overwritten is told.
    let (done, summary) = run(&["-C", "1", "-W", "2", "-o", "x.pcapng"])?;
    assert_eq!(summary.packets(), done.captured()?);
    let (done, summary) = run(&["-o", "-"])?;
    let path = lab.dir().join("stdout.pcap");
    fs::write(&path, &done.stdout)?;
    assert_eq!(summary.packets(), Trace::new(path).count()?);
    // Where no file can be written nothing is traced.
    let (done, summary) = run(&["-o", "/dev/full"])?;
    ensure!(done.stderr.contains("the capture ended there"), "{}", done.stderr);
    assert_eq!(summary.packets(), 0);
    Ok(())
}

fn own_loopback(lab: &Lab) -> Result<()> {
    let program = r#"python3 -m http.server --bind 127.0.0.1 8000 & server=$!
        until curl -s -o page http://127.0.0.1:8000/; do sleep 0.1; done; kill $server; exit 0"#;
    let (done, summary) = summed(lab, &["--loopback", "sh", "-c", program])?;
    let done = done.exited(0)?;
    is_complete(&done, &summary)?;
    let peer = summary.peer("tcp", 8000)?;
    assert_eq!((peer.text("address")?, peer.text("role")?), ("127.0.0.1", "client"));
    assert_eq!(peer.number("packets_sent")?, done.trace().count_of("tcp.dstport == 8000")? as u64);
    assert_eq!(peer.number("packets_received")?, done.trace().count_of("tcp.srcport == 8000")? as u64);
    let attempts = done.trace().count_of("tcp.flags.syn == 1 and tcp.flags.ack == 0")? as u64;
    assert_eq!((peer.number("connections")?, peer.number("connections_refused")?), (attempts, attempts - 1));
    Ok(())
}

/// What a program or a server writes into a packet reaches no terminal.
fn hostile_names(lab: &Lab) -> Result<()> {
    let _web = lab.web()?;
    let program = r#"import socket, sys
client = socket.create_connection((sys.argv[1], 80))
client.sendall(b'GET / HTTP/1.1\r\nHost: \x1b[31mred\r\n\r\n')
client.recv(10)
resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
resolver.sendto(b'\0\7\1\0\0\1\0\0\0\0\0\0\6\x1b[2Jhi\0\0\1\0\1', (sys.argv[1], 53))
"#;
    let words = ["python3", "-c", program, SERVER_ADDRESS];
    let (done, summary) = summed(lab, &words)?;
    let done = done.exited(0)?;
    assert_eq!(summary.peer("tcp", 80)?.names()?, []);
    assert_eq!(summary.peer("udp", 53)?.texts("unanswered_names")?, [r"\027\0912jhi"]);
    ensure!(!done.stderr.contains('\u{1b}'), "{}", done.stderr);
    let done = lab.nsntrace(["--summary"].iter().chain(&words))?.run()?.exited(0)?;
    ensure!(done.stderr.contains(r"(\027\0912jhi)") && !done.stderr.contains('\u{1b}'), "{}", done.stderr);
    Ok(())
}

fn flood_of_peers(lab: &Lab) -> Result<()> {
    let program = "
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(5000):
    client.sendto(b'x', (sys.argv[1], 10000 + number))
";
    let (done, summary) = summed(lab, &["python3", "-c", program, SERVER_ADDRESS])?;
    is_complete(&done.exited(0)?, &summary)?;
    let others = summary.others();
    // A row is that of the refusals.
    assert_eq!((summary.peers().len(), others.number("packets_sent")?), (4096, 5000 - 4095));
    Ok(())
}

fn width_and_colour(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let _web = lab.web6()?;
    let long = "a-name-that-is-rather-long-for-a-table.example.test";
    let program = r#"printf ready; read line
        curl -s -o page --resolve "$2:80:[$1]" "http://$2/"; curl -s "http://[$1]:81/"; exit 0"#;
    let job = || lab.nsntrace(["--summary", "sh", "-c", program, "sh", SERVER_ADDRESS6, long]);
    let on_terminal = |columns: u16, environment: [(&str, &str); 2]| -> Result<String> {
        let job = environment.iter().fold(job()?, |job, (name, value)| job.env(name, value));
        let mut terminal = job.spawn_on_terminal()?;
        terminal.shows("ready")?;
        terminal.resize(24, columns)?;
        terminal.types("\n")?;
        terminal.shows("such as ARP")?;
        let screen = terminal.screen();
        terminal.process.wait()?.exited(0)?;
        Ok(screen[screen.find("PROTO").context("no table")?..].replace('\r', ""))
    };
    let (xterm, colours, none) = (("TERM", "xterm"), ("NO_COLOR", ""), ("NO_COLOR", "1"));
    let row = |table: &str| -> Result<String> {
        Ok(table.lines().find(|line| line.contains("]:80")).context("no row")?.to_owned())
    };
    let wide = on_terminal(160, [xterm, colours])?;
    ensure!(wide.contains("\u{1b}[31mrefused\u{1b}[0m") && row(&wide)?.contains(long), "{wide}");
    for quiet in [[xterm, none], [("TERM", "dumb"), colours]] {
        let narrow = on_terminal(80, quiet)?;
        ensure!(narrow.lines().all(|line| line.len() <= 80) && !narrow.contains('\u{1b}'), "{narrow}");
        ensure!(row(&narrow)?.contains(" a-name") && !row(&narrow)?.contains(long), "{narrow}");
    }
    // In a file nothing is cut.
    let mut run = job()?.told().spawn()?;
    run.stdin_pipe()?.write_all(b"\n")?;
    let done = run.wait()?.exited(0)?;
    ensure!(row(&done.stderr)?.contains(long) && !done.stderr.contains('\u{1b}'), "{}", done.stderr);
    Ok(())
}

/// The words of README.
fn python_reads_it(lab: &Lab) -> Result<()> {
    let _web = lab.web()?;
    let binary = nsntrace_binary()?.display().to_string();
    let check = r#"nsntrace=$1; server=$2; other=$3
        "$nsntrace" -q --summary=json curl -s -o page "http://$server/" 2>log || exit 9
        tail -n 1 log | python3 -c '
import json, sys
summary = json.load(sys.stdin)
others = [peer for peer in summary["peers"] if peer["address"] != sys.argv[1]]
sys.exit(bool(others or summary["others"]["packets_sent"] or summary["packets_dropped"]))
' "$other""#;
    for (other, status) in [(SERVER_ADDRESS, 0), ("192.0.2.1", 1)] {
        lab.tracer(["sh", "-c", check, "sh", &binary, SERVER_ADDRESS, other])?.run()?.exited(status)?;
    }
    Ok(())
}

fn wrong_form(lab: &Lab) -> Result<()> {
    let done = lab.nsntrace(["--summary=xml", "touch", "ran"])?.run()?;
    let line = done.complaint()?;
    ensure!(line.contains("--summary") && line.contains("json"), "{line}");
    assert!(!done.dir.join("ran").exists());
    Ok(())
}
