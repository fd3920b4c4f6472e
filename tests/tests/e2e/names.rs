//! Names of addresses in a pcapng, from the answers that the program got.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{Done, Lab, Pcapng, SERVER_ADDRESS, SERVER_ADDRESS6, SOON, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    tshark_shows_them,
    they_stand_where_they_are_learned,
    each_file_has_them,
    live_stream_has_them_in_one_pass,
    what_already_runs_has_them,
    nobody_else_tells_them,
];

const NAME: &str = "www.example.test";

/// nsntrace that writes a pcapng, and this program.
fn traced(lab: &Lab, words: &[&str]) -> Result<(Done, Pcapng)> {
    let done = lab.nsntrace([&["-o", "x.pcapng"], words].concat())?.run()?.exited(0)?;
    let file = Pcapng::read(&done.dir.join("x.pcapng"))?;
    Ok((done, file))
}

fn address(text: &str) -> Result<IpAddr> {
    Ok(text.parse()?)
}

/// No names are looked up but in the file: not elsewhere, and not in its packets.
fn tshark(path: &str) -> Command {
    let mut tshark = Command::new("tshark");
    tshark.args(["-l", "-N", "n", "-r", path, "-Y", "tcp.flags.syn == 1 && tcp.flags.ack == 0"]);
    tshark.args(["-T", "fields", "-e", "ip.dst_host", "-e", "ipv6.dst_host"]);
    tshark
}

fn tshark_shows_them(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let record = format!("--host-record=six.example.test,{SERVER_ADDRESS6}");
    let listen = format!("--listen-address={SERVER_ADDRESS}");
    let _names = lab.name_server_with(SERVER_ADDRESS, &[&listen, &record])?;
    let (_web, _web6) = (lab.web()?, lab.web6()?);
    let program = "curl -s -o page http://www.example.test/; curl -s -o page http://six.example.test/";
    let (done, file) = traced(lab, &["sh", "-c", program])?;
    let expected = [
        (address(SERVER_ADDRESS)?, NAME.to_owned()),
        (address(SERVER_ADDRESS6)?, "six.example.test".to_owned()),
    ];
    let names: Vec<_> = file.names.iter().map(|(_, address, name)| (*address, name.clone())).collect();
    assert_eq!(names, expected);
    assert_eq!(done.trace_at("x.pcapng").info()?.packets, done.captured()?);
    let path = done.dir.join("x.pcapng");
    let shown = tshark(path.to_str().context("a path")?).output()?;
    let shown = String::from_utf8(shown.stdout)?;
    assert_eq!(shown, format!("{NAME}\t\n\tsix.example.test\n"));
    Ok(())
}

/// Behind the answer, and before the first packet to the address; once, however often it is asked for.
fn they_stand_where_they_are_learned(lab: &Lab) -> Result<()> {
    let (_names, _web) = (lab.name_server_with("10.99.0.2", &["--listen-address=10.99.0.2"])?, lab.web()?);
    lab.sh("echo nameserver 10.99.0.2 >/etc/resolv.conf")?;
    let program = "for n in 1 2 3; do curl -s -o page http://www.example.test/; done";
    let (done, file) = traced(lab, &["sh", "-c", program])?;
    let [(place, _, _)] = file.names[..] else { panic!("{:?}", file.names) };
    let first = |filter: &str| -> Result<usize> {
        let numbers = done.trace_at("x.pcapng").fields(filter, &["frame.number"])?;
        Ok(numbers.first().context("no such packet")?[0].parse()?)
    };
    let (answer, syn) = (first("dns.a")?, first("tcp.flags.syn == 1")?);
    ensure!(
        answer <= place && place < syn,
        "the answer is packet {answer}, the SYN {syn}, names behind {place}"
    );
    Ok(())
}

fn each_file_has_them(lab: &Lab) -> Result<()> {
    let (_names, _web) = (lab.name_server()?, lab.web()?);
    let words = ["-C", "1", "-o", "x.pcapng", "curl", "-s", "-o", "page", "http://www.example.test/data.bin"];
    let done = lab.nsntrace(words)?.run()?.exited(0)?;
    for number in ["", "1", "2"] {
        let file = Pcapng::read(&done.dir.join(format!("x.pcapng{number}")))?;
        let names: Vec<_> = file.names.iter().map(|(_, address, name)| (*address, &name[..])).collect();
        assert_eq!(names, [(address(SERVER_ADDRESS)?, NAME)], "file {number}");
        let is_at_front = file.names[0].0 == 0;
        ensure!(is_at_front != number.is_empty(), "file {number}: {:?}", file.names);
    }
    Ok(())
}

/// tshark knows the name when the first packet to the address comes, while the program runs.
fn live_stream_has_them_in_one_pass(lab: &Lab) -> Result<()> {
    let (_names, _web) = (lab.name_server()?, lab.web()?);
    let program = "curl -s -o page http://www.example.test/; read line";
    let words = ["-o", "-", "--format", "pcapng", "sh", "-c", program];
    let mut run = lab.nsntrace(words)?.told().piped().spawn()?;
    let shown = lab.dir().join("shown");
    let mut tshark =
        tshark("-").stdin(Stdio::from(run.stdout_pipe()?)).stdout(fs::File::create(&shown)?).spawn()?;
    let expected = format!("{NAME}\t\n");
    until("the name", SOON, || Ok((fs::read_to_string(&shown)? == expected).then_some(())))?;
    run.stdin_pipe()?.write_all(b"\n")?;
    run.wait()?.exited(0)?;
    ensure!(tshark.wait()?.success(), "tshark complains");
    Ok(())
}

fn what_already_runs_has_them(lab: &Lab) -> Result<()> {
    let _names = lab.name_server()?;
    let cgroup = lab.cgroup("one")?;
    let path = cgroup.path().to_str().context("a path")?;
    let mut run = lab.nsntrace(["-o", "x.pcapng", "--cgroup", path])?.spawn()?;
    run.complains("Use ctrl-c")?;
    for option in ["+notcp", "+tcp"] {
        let words = ["dig", "+short", option, &format!("@{SERVER_ADDRESS}"), NAME];
        lab.host_in(&cgroup, words)?.output()?;
    }
    run.signal(Signal::SIGINT)?;
    let done = run.wait()?.exited(0)?;
    let file = Pcapng::read(&done.dir.join("x.pcapng"))?;
    let names: Vec<_> = file.names.iter().map(|(_, address, name)| (*address, &name[..])).collect();
    assert_eq!(names, [(address(SERVER_ADDRESS)?, NAME)]);
    Ok(())
}

/// Sends an answer to who asks, and before it one that nobody wants: with another id, or for another name.
const LIAR: &str = r"
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print('listening', flush=True)
while True:
    query, who = server.recvfrom(1000)
    question = query[12:query.index(b'\0', 12) + 5]
    record = b'\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x0a\x63\0\2'
    head = b'\x81\x80\0\1\0\1\0\0\0\0'
    for id, name in (b'\0\0', question), (query[:2], b'\4evil' + question), (query[:2], question):
        server.sendto(id + head + name + record, who)
";

fn nobody_else_tells_them(lab: &Lab) -> Result<()> {
    let _liar = nsntrace_tests::ask::start(lab.internet(["python3", "-c", LIAR, SERVER_ADDRESS])?)?;
    let words = ["dig", "+tries=1", "+time=20", &format!("@{SERVER_ADDRESS}"), NAME];
    let (done, file) = traced(lab, &words)?;
    assert_eq!(done.trace_at("x.pcapng").count_of("dns.a")?, 3);
    let names: Vec<_> = file.names.iter().map(|(_, address, name)| (*address, &name[..])).collect();
    assert_eq!(names, [(address("10.99.0.2")?, NAME)]);
    Ok(())
}
