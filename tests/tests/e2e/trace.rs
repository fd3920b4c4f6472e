//! What is in the trace: all of the program's packets, whole, at the right time, and nobody else's.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{INTERNET_DEVICE, Lab, SERVER_ADDRESS, SOON, Trace, Web, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    download_is_whole,
    download_begins_and_ends,
    download_is_counted,
    file_is_nanosecond_pcap,
    times_are_right,
    only_the_program,
    every_byte_of_parallel_streams,
    udp,
    icmp,
    dns,
    vlan_tags,
    nothing_is_nothing,
    birth_of_the_namespace_is_not_in_it,
];

/// The address of the first run on a host.
const ADDRESS: &str = "172.16.42.255";

fn download(lab: &Lab, web: &Web) -> Result<Trace> {
    let done = lab.nsntrace(["curl", "-s", "-o", "page", &web.url])?.run()?.exited(0)?;
    ensure!(fs::read(done.dir.join("page"))? == web.body, "curl did not get what was served");
    Ok(done.trace())
}

fn download_is_whole(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let trace = download(lab, &web)?;
    let bodies = trace.http_bodies()?;
    let body = bodies.get("data.bin").context("no body in the trace")?;
    assert!(*body == web.body, "{} bytes in the trace differ from those served", body.len());
    let packets = trace.packets("frame")?;
    assert!(packets.iter().all(|packet| packet.captured == packet.len), "a packet is cut");
    assert!(packets.iter().any(|packet| packet.len > 9000), "no large packet was tried");
    Ok(())
}

fn download_begins_and_ends(lab: &Lab) -> Result<()> {
    let trace = download(lab, &lab.web()?)?;
    let fields = ["ip.src", "tcp.flags.syn", "tcp.flags.ack", "tcp.flags.fin"];
    let packets = trace.fields("tcp", &fields)?;
    assert_eq!(packets[0], [ADDRESS, "1", "0", "0"], "the first packet is not the program's SYN");
    for side in [ADDRESS, SERVER_ADDRESS] {
        assert!(packets.iter().any(|packet| packet[0] == side && packet[3] == "1"), "no FIN of {side}");
    }
    let last = packets.last().context("no packet")?;
    assert_eq!(last[1..], ["0", "1", "0"], "the last packet is not the ACK of a FIN");
    Ok(())
}

fn download_is_counted(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let done = lab.nsntrace(["curl", "-s", "-o", "page", &web.url])?.run()?.exited(0)?;
    assert_eq!(done.captured()?, done.trace().count()?);
    assert_eq!(done.dropped()?, 0);
    Ok(())
}

fn file_is_nanosecond_pcap(lab: &Lab) -> Result<()> {
    let trace = download(lab, &lab.web()?)?;
    let info = trace.info()?;
    assert_eq!((info.kind.as_str(), info.link.as_str()), ("nsecpcap", "ether"));
    assert!(info.in_order, "the packets are not in the order of time");
    Ok(())
}

/// Compares with tcpdump, which sees the same packets behind the NAT some microseconds later or earlier.
fn times_are_right(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let words = ["tcpdump", "-i", INTERNET_DEVICE, "-Z", "root", "-B", "65536", "--immediate-mode", "-j"];
    let words =
        words.into_iter().chain(["adapter_unsynced", "--time-stamp-precision=nano", "-w", "reference.pcap"]);
    let mut tcpdump = lab.internet(words)?.spawn()?;
    tcpdump.complains("listening on")?;
    let began = SystemTime::now();
    let trace = download(lab, &web)?;
    let ended = SystemTime::now();
    tcpdump.signal(Signal::SIGINT)?;
    let reference = tcpdump.wait()?.trace_at("reference.pcap");

    for packet in trace.packets("frame")? {
        let in_time = nanoseconds(began)?..=nanoseconds(ended)?;
        assert!(in_time.contains(&packet.time), "{} is not within the run, {in_time:?}", packet.time);
    }
    let reference = times(&reference)?;
    let ours = times(&trace)?;
    for from_server in [false, true] {
        let ours = ours.iter().filter(|(packet, _)| packet.0 == from_server);
        let ours = ours.filter_map(|(packet, time)| Some(time - reference.get(packet)?));
        let mut differences: Vec<_> = ours.collect();
        ensure!(differences.len() > 5, "only {} packets to compare", differences.len());
        differences.sort_unstable();
        let median = differences[differences.len() / 2];
        assert!(median.abs() < 1_000_000, "{median} ns off (from the server: {from_server})");
    }
    Ok(())
}

/// The times of the TCP packets, by what the NAT does not change.
fn times(trace: &Trace) -> Result<HashMap<(bool, Vec<String>), i128>> {
    let identity = ["ip.src", "ip.len", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.window_size_value"];
    let packets = trace.fields("tcp", &identity)?;
    let times = trace.packets("tcp")?;
    let key = |mut fields: Vec<String>| (fields.remove(0) == SERVER_ADDRESS, fields);
    Ok(packets.into_iter().map(key).zip(times.iter().map(|packet| packet.time)).collect())
}

fn nanoseconds(time: SystemTime) -> Result<i128> {
    Ok(time.duration_since(UNIX_EPOCH)?.as_nanos().cast_signed())
}

/// Others on the host download from the same server all the while.
fn only_the_program(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let others = r#"while curl -s -o /dev/null "$1"; do echo; done"#;
    let others = lab.host(["sh", "-c", others, "sh", &web.url])?.spawn()?;
    let program = r#"curl -s -o page "$1"; echo half; read line; curl -s -o page "$1""#;
    let mut run = lab.nsntrace(["sh", "-c", program, "sh", &web.url])?.told().spawn()?;
    run.says("half")?;
    let so_far = others.stdout()?.len();
    until("two downloads of another process", SOON, || {
        Ok((others.stdout()?.len() >= so_far + 2).then_some(()))
    })?;
    run.stdin_pipe()?.write_all(b"\n")?;
    let trace = run.wait()?.exited(0)?.trace();
    assert_eq!(trace.count_of("http.request")?, 2);
    assert_eq!(trace.count_of(&format!("!arp && !(ip.addr == {ADDRESS})"))?, 0, "packets of others");
    Ok(())
}

/// Several CPUs fill the ring at once.
fn every_byte_of_parallel_streams(lab: &Lab) -> Result<()> {
    let _server = lab.iperf()?;
    let words = ["-B", "131072", "iperf3", "-c", SERVER_ADDRESS, "-P", "4", "-n", "20M"];
    let done = lab.nsntrace(words)?.run()?.exited(0)?;
    let info = done.trace().info()?;
    assert_eq!(info.packets, done.captured()?);
    assert!(info.in_order, "the packets are not in the order of time");
    if done.dropped()? == 0 {
        let bytes = acknowledged_bytes(&done.trace())?;
        assert!(bytes > 10 << 20, "only {bytes} bytes were sent");
    }
    Ok(())
}

/// The bytes of the program's that the server has acknowledged. Fails where one of them is not in the trace.
///
/// iperf3 says that it has sent what is in the socket's buffer still when it ends: the server knows better.
fn acknowledged_bytes(trace: &Trace) -> Result<u64> {
    let numbers = |filter: &str, names: [&str; 3]| -> Result<Vec<[u64; 3]>> {
        let parse = |row: &Vec<String>| Ok([row[0].parse()?, row[1].parse()?, row[2].parse()?]);
        trace.fields(filter, &names)?.iter().map(parse).collect()
    };
    let sent = format!("ip.src == {ADDRESS} && tcp.len > 0");
    let mut segments = numbers(&sent, ["tcp.stream", "tcp.seq", "tcp.len"])?;
    segments.sort_unstable();
    // tshark counts from 1, behind the SYN.
    let mut ends = HashMap::new();
    for [stream, from, len] in segments {
        let end = ends.entry(stream).or_insert(1);
        ensure!(from <= *end, "stream {stream}: nothing from {end} to {from}");
        *end = (from + len).max(*end);
    }
    let got = format!("ip.src == {SERVER_ADDRESS} && tcp.flags.ack == 1");
    for [stream, ack, _] in numbers(&got, ["tcp.stream", "tcp.ack", "tcp.len"])? {
        // The FIN has a number too.
        let end = *ends.entry(stream).or_insert(1);
        ensure!(ack <= end + 1, "stream {stream}: the server got {ack} bytes, the trace {end}");
    }
    Ok(ends.values().map(|end| end - 1).sum())
}

const UDP_CLIENT: &str = "
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(10)
client.connect((sys.argv[1], 7))
for size in 0, 1, 100, 1472, 8000:
    client.send(bytes(size))
    assert len(client.recv(65535)) == size
";

fn udp(lab: &Lab) -> Result<()> {
    let _server = lab.udp_echo(7)?;
    let trace = lab.nsntrace(["python3", "-c", UDP_CLIENT, SERVER_ADDRESS])?.run()?.exited(0)?.trace();
    for direction in ["dst", "src"] {
        let lengths = trace.fields(&format!("udp.{direction}port == 7"), &["udp.length"])?.concat();
        assert_eq!(lengths, ["8", "9", "108", "1480", "8008"], "udp.{direction}port == 7");
    }
    // 8000 bytes do not fit: both ways there is a first fragment and one or more in its middle.
    assert!(trace.count_of("ip.flags.mf == 1")? > 2, "fragments are missing");
    Ok(())
}

fn icmp(lab: &Lab) -> Result<()> {
    let trace = lab.nsntrace(["busybox", "ping", "-c", "2", SERVER_ADDRESS])?.run()?.exited(0)?.trace();
    assert_eq!(trace.fields("icmp", &["icmp.type"])?.concat(), ["8", "0", "8", "0"]);
    Ok(())
}

fn dns(lab: &Lab) -> Result<()> {
    let _server = lab.name_server()?;
    let server = format!("@{SERVER_ADDRESS}");
    let done = lab.nsntrace(["dig", "+short", "+tries=1", &server, "www.example.test"])?.run()?.exited(0)?;
    assert_eq!(done.text().trim(), SERVER_ADDRESS);
    let answers = done.trace().fields("dns", &["dns.flags.response", "dns.qry.name", "dns.a"])?;
    assert_eq!(answers[0], ["0", "www.example.test", ""]);
    assert_eq!(answers[1], ["1", "www.example.test", SERVER_ADDRESS]);
    Ok(())
}

/// Sends one tagged frame on the device with this address, `python3 -c … ADDRESS`.
const TAGGED_FRAME: &str = "
import json, socket, subprocess, sys
links = json.loads(subprocess.check_output(['ip', '-j', 'address']))
device = [l['ifname'] for l in links for a in l['addr_info'] if a.get('local') == sys.argv[1]][0]
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind((device, 0))
tag = bytes([0x81, 0, 0x60, 42])
raw.send(b'\\xff' * 6 + b'\\2' * 6 + tag + bytes([0x88, 0xb5]) + sys.argv[1].encode())
";

/// The kernel takes the tag out of a frame that arrives, and leaves it in one that is sent.
fn vlan_tags(lab: &Lab) -> Result<()> {
    let program = r#"python3 -c "$1" "$2"; echo sent; read line"#;
    let mut run = lab.nsntrace(["sh", "-c", program, "sh", TAGGED_FRAME, ADDRESS])?.told().spawn()?;
    run.says("sent")?;
    let gateway = "172.16.42.254";
    lab.host(["python3", "-c", TAGGED_FRAME, gateway])?.output()?;
    run.stdin_pipe()?.write_all(b"\n")?;
    let trace = run.wait()?.exited(0)?.trace();
    let fields = ["vlan.id", "vlan.priority", "vlan.etype", "data.data", "frame.len", "frame.cap_len"];
    let frames = trace.fields("vlan", &fields)?;
    let expected = [ADDRESS, gateway].map(|text| {
        let data: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        let len = (18 + text.len()).to_string();
        ["42".into(), "3".into(), "0x88b5".into(), data, len.clone(), len]
    });
    assert_eq!(frames, expected.map(Vec::from));
    Ok(())
}

fn nothing_is_nothing(lab: &Lab) -> Result<()> {
    let done = lab.nsntrace(["true"])?.run()?.exited(0)?;
    assert_eq!(done.captured()?, 0);
    assert_eq!(done.trace().info()?.packets, 0);
    Ok(())
}

/// Router solicitations, duplicate address detection and multicast reports come within two seconds, if at all.
fn birth_of_the_namespace_is_not_in_it(lab: &Lab) -> Result<()> {
    let done = lab.nsntrace(["sleep", "2"])?.run()?.exited(0)?;
    let packets = done.trace().fields("frame", &["_ws.col.Info"])?;
    assert_eq!(packets, Vec::<Vec<String>>::new());
    Ok(())
}
