//! A trace as pcapng, judged by tshark and its kin, and by a strict reader.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{Done, Lab, Pcapng, SERVER_ADDRESS, SERVER_ADDRESS6, SOON, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    tools_have_nothing_to_say,
    python_reads_the_same,
    it_tells_where_it_comes_from,
    directions_are_those_of_the_addresses,
    as_pcap_it_is_the_same,
    format_goes_before_the_name,
    statistics_balance,
    count_is_exact_and_closes_the_file,
    stream_is_live,
    disk_full,
];

/// What `nsntrace` has written as `x.pcapng`.
fn read(done: &Done) -> Result<Pcapng> {
    Pcapng::read(&done.dir.join("x.pcapng"))
}

fn download(lab: &Lab, options: &[&str]) -> Result<Done> {
    let web = lab.web()?;
    let program = ["curl", "-s", "-o", "page", &web.url];
    lab.nsntrace(["-o", "x.pcapng"].iter().chain(options).chain(&program))?.run()?.exited(0)
}

fn tools_have_nothing_to_say(lab: &Lab) -> Result<()> {
    let done = download(lab, &[])?;
    let info = done.trace_at("x.pcapng").info()?;
    assert_eq!((info.kind.as_str(), info.link.as_str()), ("pcapng", "ether"));
    assert!(info.in_order, "the packets are not in the order of time");
    assert_eq!(info.packets, done.captured()?);
    silent(&done.dir, &["capinfos", "x.pcapng"])?;
    silent(&done.dir, &["tshark", "-n", "-r", "x.pcapng", "-V"])?;
    silent(&done.dir, &["editcap", "x.pcapng", "y.pcapng"])?;
    let (mut ours, copy) = (read(&done)?, Pcapng::read(&done.dir.join("y.pcapng"))?);
    assert!(ours.packets.iter().any(|packet| packet.owner.is_some() && packet.process.is_some()));
    // An option that it does not know is not in its copy.
    ours.packets.iter_mut().for_each(|packet| packet.process = None);
    assert!(copy.packets == ours.packets, "editcap's copy has other packets");
    Ok(())
}

/// Runs a tool, which must not complain.
fn silent(dir: &Path, words: &[&str]) -> Result<()> {
    let output = Command::new(words[0]).args(&words[1..]).current_dir(dir).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let complaint = stderr.lines().find(|line| !line.starts_with("Running as user"));
    ensure!(output.status.success() && complaint.is_none(), "{words:?} says: {stderr}");
    Ok(())
}

/// Prints what python-pcapng finds in a file.
const READER: &str = "
import sys
from pcapng import FileScanner, blocks
for block in FileScanner(open(sys.argv[1], 'rb')):
    if isinstance(block, blocks.EnhancedPacket):
        time = block.timestamp_high << 32 | block.timestamp_low
        way = block.options['epb_flags'].inout
        print('packet', block.interface_id, time, block.packet_len, way, block.packet_data.hex())
    elif isinstance(block, blocks.InterfaceDescription):
        print('interface', block.link_type, block.options['if_name'])
    elif isinstance(block, blocks.NameResolution):
        for record in block.records:
            print('name', record['address'], *record['names'])
    elif isinstance(block, blocks.InterfaceStatistics):
        print('statistics', block.interface_id, block.options['isb_usrdeliv'])
";

/// A reader that others have written. `cargo xtask test` installs it where it can be had.
fn python_reads_the_same(lab: &Lab) -> Result<()> {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python");
    if !library.join("pcapng").exists() {
        println!("python-pcapng SKIPPED, nothing was tried: it is not installed");
        return Ok(());
    }
    let record = format!("--host-record=both.example.test,{SERVER_ADDRESS},{SERVER_ADDRESS6}");
    let listen = format!("--listen-address={SERVER_ADDRESS}");
    let _names = lab.name_server_with(SERVER_ADDRESS, &[&listen, &record])?;
    let _web = lab.web()?;
    let page = ["curl", "-s", "-o", "page", "http://both.example.test/data.bin"];
    let filter = ["-o", "x.pcapng", "-f", "tcp or udp port 53"];
    let done = lab.nsntrace([&filter[..], &page].concat())?.run()?.exited(0)?;
    let file = read(&done)?;
    let mut expected = Vec::new();
    for interface in &file.interfaces {
        let name = interface.name.as_deref().unwrap_or_default();
        expected.push(format!("interface {} {name}", interface.link_type));
    }
    ensure!(file.names.len() == 2, "{:?}", file.names);
    for (number, packet) in file.packets.iter().enumerate() {
        for (_, address, name) in file.names.iter().filter(|(before, ..)| *before == number) {
            expected.push(format!("name {address} {name}"));
        }
        let way = if packet.direction == 1 { "inbound" } else { "outbound" };
        let bytes: String = packet.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let (interface, time, length) = (packet.interface, packet.time, packet.wire_length);
        expected.push(format!("packet {interface} {time} {length} {way} {bytes}"));
    }
    for (interface, statistics) in &file.statistics {
        expected.push(format!("statistics {interface} {}", statistics.delivered));
    }
    let mut python = Command::new("python3");
    let output =
        python.args(["-c", READER, "x.pcapng"]).current_dir(&done.dir).env("PYTHONPATH", library).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && complaint.is_empty(), "python-pcapng says: {complaint}");
    ensure!(file.packets.len() > 10, "{} packets only", file.packets.len());
    let found = String::from_utf8(output.stdout)?;
    ensure!(found.lines().eq(expected), "python-pcapng reads something else: {found:.2000}");
    Ok(())
}

fn it_tells_where_it_comes_from(lab: &Lab) -> Result<()> {
    let words = ["-s", "1000", "-f", "udp", "-o", "x.pcapng", "true", "two words", "\u{1b}[31m"];
    let done = lab.nsntrace(words)?.run()?.exited(0)?;
    let file = read(&done)?;
    assert!(
        file.comment.ends_with(" -s 1000 -f udp -o x.pcapng true 'two words' '?[31m'"),
        "{}",
        file.comment
    );
    assert!(file.comment.contains("nsntrace"), "{}", file.comment);
    assert_eq!(file.application, concat!("nsntrace ", env!("CARGO_PKG_VERSION")));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    assert!(file.system.starts_with(&format!("Linux {} ", release.trim())), "{}", file.system);
    let [interface] = &file.interfaces[..] else { panic!("{:?}", file.interfaces) };
    assert!(interface.name.as_ref().is_some_and(|name| name.starts_with("nscap")), "{interface:?}");
    assert_eq!((interface.link_type, interface.snaplen), (1, 1000));
    assert_eq!(interface.addresses, [format!("{}/31", done.address()?)]);
    let [ipv6] = &interface.comments[..] else { panic!("{:?}", interface.comments) };
    assert!(ipv6.starts_with("IPv6 address fd") && ipv6.ends_with("/127"), "{ipv6}");
    assert_eq!(interface.filter.as_deref(), Some("udp"));
    Ok(())
}

fn directions_are_those_of_the_addresses(lab: &Lab) -> Result<()> {
    let done = download(lab, &[])?;
    let address = done.address()?;
    let fields = ["frame.packet_flags_direction", "ip.src", "ip.dst"];
    let packets = done.trace_at("x.pcapng").fields("ip", &fields)?;
    for packet in &packets {
        let is_outbound = packet[1] == address;
        ensure!(is_outbound != (packet[2] == address), "not the program's: {packet:?}");
        let expected = if is_outbound { 2 } else { 1 };
        assert_eq!(u32::from_str_radix(packet[0].trim_start_matches("0x"), 16)?, expected, "{packet:?}");
    }
    assert!(packets.len() > 10);
    Ok(())
}

/// tshark makes a pcap of it that is the same as its packets in a row; whole ones and cut ones.
fn as_pcap_it_is_the_same(lab: &Lab) -> Result<()> {
    for options in [&[][..], &["-s", "99"]] {
        let done = download(lab, options)?;
        silent(&done.dir, &["tshark", "-r", "x.pcapng", "-w", "y.pcap", "-F", "nsecpcap"])?;
        let converted = fs::read(done.dir.join("y.pcap"))?;
        let file = read(&done)?;
        // tshark has its own idea of a snapshot length in the header.
        assert!(converted[24..] == file.to_pcap(0)?[24..], "{options:?}: not the same packets");
        assert_eq!(file.packets.len() as u64, done.captured()?);
        let wire: u32 = file.packets.iter().map(|packet| packet.wire_length).sum();
        assert!(wire > 3_000_000, "{options:?}: only {wire} bytes on the wire");
    }
    Ok(())
}

fn format_goes_before_the_name(lab: &Lab) -> Result<()> {
    for (format, kind, name) in [("pcap", "nsecpcap", "x.pcapng"), ("pcapng", "pcapng", "x.pcap")] {
        let done = lab.nsntrace(["--format", format, "-w", name, "true"])?.run()?.exited(0)?;
        assert_eq!(done.trace_at(name).info()?.kind, kind);
    }
    let done = lab.nsntrace(["--format", "xml", "true"])?.run()?;
    assert!(done.complaint()?.contains("pcapng"), "{}", done.stderr);
    Ok(())
}

fn statistics_balance(lab: &Lab) -> Result<()> {
    let _server = lab.udp_sink(9)?;
    let count = 200_000.to_string();
    let program = [env!("CARGO_BIN_EXE_flood"), &format!("{SERVER_ADDRESS}:9"), &count];
    for options in [&[][..], &["-B", "64"]] {
        let words = ["-o", "x.pcapng"].iter().chain(options).chain(&program);
        let done = lab.nsntrace(words)?.limit(Duration::from_secs(120)).run()?.exited(0)?;
        let file = read(&done)?;
        let [(0, statistics)] = file.statistics[..] else { panic!("{:?}", file.statistics) };
        let (captured, dropped) = (done.captured()?, done.dropped()?);
        assert_eq!(file.packets.len() as u64, captured);
        assert_eq!(statistics.delivered, captured);
        assert_eq!(statistics.dropped, Some(dropped));
        assert_eq!(statistics.received, Some(captured + dropped));
        assert_eq!(statistics.accepted, Some(captured + dropped));
        let during = statistics.from..=statistics.to;
        assert!(file.packets.iter().all(|packet| during.contains(&packet.time)), "{statistics:?}");
        assert!(file.packets.is_sorted_by_key(|packet| packet.time), "not in the order of time");
        println!("pcapng: {dropped} of {count} packets dropped with {options:?}");
    }
    Ok(())
}

fn count_is_exact_and_closes_the_file(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let program = r#"curl -s -o page "$1"; read line"#;
    let words = ["-o", "x.pcapng", "-c", "7", "sh", "-c", program, "sh", &web.url];
    let mut run = lab.nsntrace(words)?.told().spawn()?;
    let path = run.dir().join("x.pcapng");
    let ended = || Ok(Pcapng::read(&path).ok().filter(|file| !file.statistics.is_empty()));
    let file = until("the end of the file", SOON, ended)?;
    assert!(run.is_alive()?, "it ended with the capture");
    assert_eq!(file.packets.len(), 7);
    assert_eq!(file.statistics[0].1.delivered, 7);
    run.stdin_pipe()?.write_all(b"\n")?;
    assert_eq!(run.wait()?.exited(0)?.captured()?, 7);
    Ok(())
}

/// Sends a word, then waits to be told to end.
const SENDER: &str = "
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.sendto(b'a word', (sys.argv[1], 9))
sys.stdin.readline()
";

fn stream_is_live(lab: &Lab) -> Result<()> {
    let _server = lab.udp_sink(9)?;
    let words = ["-o", "-", "--format", "pcapng", "python3", "-c", SENDER, SERVER_ADDRESS];
    let mut run = lab.nsntrace(words)?.told().piped().spawn()?;
    let path = run.dir().join("x.pcapng");
    let (mut stream, mut copy) = (run.stdout_pipe()?, File::create(&path)?);
    let copying = thread::spawn(move || io::copy(&mut stream, &mut copy));
    until("the packet in the trace", SOON, || {
        let so_far = Pcapng::read(&path).ok();
        let is_there = |file: &Pcapng| file.packets.iter().any(|packet| packet.bytes.ends_with(b"a word"));
        Ok(so_far.filter(is_there))
    })?;
    run.stdin_pipe()?.write_all(b"\n")?;
    let done = run.wait()?.exited(0)?;
    copying.join().ok().context("the copying failed")??;
    let file = read(&done)?;
    assert_eq!(file.packets.len() as u64, done.captured()?);
    assert_eq!(file.statistics.len(), 1);
    Ok(())
}

/// Whole packets only, and no more than said.
fn disk_full(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let disk = lab.small_disk("300k")?;
    let file = format!("{disk}/x.pcapng");
    let done = lab.nsntrace(["-o", &file, "curl", "-s", "-o", "page", &web.url])?.run()?.exited(0)?;
    let line = done.line_with("No space left")?;
    assert!(line.starts_with("nsntrace: ") && line.contains("x.pcapng"), "{line}");
    let copy = lab.host(["cp", &file, "."])?.run()?.exited(0)?;
    let packets = read(&copy)?.packets.len() as u64;
    assert!(packets > 0);
    assert_eq!(packets, done.captured()?);
    assert_eq!(copy.trace_at("x.pcapng").count()?, packets);
    Ok(())
}
