//! `-f`: what it picks is what `tcpdump -r` picks.

use std::{collections::BTreeMap, fs, process::Command, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use nsntrace::filter::classic::Instruction;
use nsntrace_tests::{
    Lab, Trace,
    filter::{Loaded, Oracle, Program, TEST_RUN_TAKES, compile, expressions, frames::frames, random},
};

use crate::{Case, cases, check};

pub const CASES: &[Case] = cases![
    verifier_takes_every_expression,
    agrees_on_every_expression,
    agrees_on_random_programs,
    whole_path,
    gets_exactly_the_request,
    large_packets,
    books_balance,
    refusals_change_nothing,
    too_large_is_told,
    slow_to_optimise,
    libpcap_is_needed_for_it_alone,
];

const EN10MB: u16 = 1;
pub const RAW: u16 = 101;

/// The number of lo, on which frames are tried.
const LO: u32 = 1;

/// What frames of an Ethernet lose on their way to a cgroup.
const ETHERNET: usize = 14;

/// Expressions of which libpcap makes programs that read memory before they write it: what is behind `or` takes the
/// offsets of what is before it. <https://github.com/the-tcpdump-group/libpcap/issues/1162>
const UNDEFINED: &[&str] = &["geneve or tcp"];

/// As what each expression is tried.
const PROGRAMS: [(Program, u16); 4] = [
    (Program::Tc { outgoing: false }, EN10MB),
    (Program::Tc { outgoing: true }, EN10MB),
    (Program::Socket, EN10MB),
    (Program::CgroupSkb, RAW),
];

/// Compiles and loads; none where libpcap has no such filter for the link type.
fn load(expression: &str, (program, linktype): (Program, u16)) -> Result<Option<(Loaded, Vec<Instruction>)>> {
    let classic = match compile(expression, linktype) {
        Ok(classic) => classic,
        Err(_) if linktype == RAW => return Ok(None),
        Err(error) => return Err(error),
    };
    let loaded = program.load(&classic).with_context(|| format!("'{expression}' as {program:?}"))?;
    Ok(Some((loaded, classic)))
}

fn verifier_takes_every_expression(_: &Lab) -> Result<()> {
    for program in PROGRAMS {
        let mut largest: BTreeMap<(u64, usize, usize, u64), &str> = BTreeMap::new();
        let mut count = 0;
        for expression in expressions() {
            let Some((loaded, classic)) = load(expression, program)? else { continue };
            largest.insert((loaded.followed, loaded.instructions, classic.len(), loaded.time), expression);
            count += 1;
        }
        let ((followed, translated, classic, time), expression) =
            largest.last_key_value().context("no expressions")?;
        println!(
            "filter: {count} expressions as {:?}; the most to check: {classic} instructions, {translated} as eBPF, \
             {followed} followed in {time} µs: {expression:.60}",
            program.0
        );
        ensure!(count > if program.1 == RAW { 150 } else { 300 }, "{count} expressions only");
    }
    Ok(())
}

fn agrees_on_every_expression(_: &Lab) -> Result<()> {
    let frames = frames();
    ensure!(frames.len() >= 2000, "{} frames only", frames.len());
    let expressions: Vec<_> = expressions().filter(|one| !UNDEFINED.contains(one)).collect();
    let (first, second) = expressions.split_at(expressions.len() / 2);
    let results = thread::scope(|scope| {
        let other = scope.spawn(|| agree(second, &frames));
        [agree(first, &frames), other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))]
    });
    let picked: u64 = results.iter().map(|(picked, _)| picked).sum();
    let wrong: Vec<_> = results.into_iter().flat_map(|(_, wrong)| wrong).collect();
    ensure!(wrong.is_empty(), "{} disagree:\n{:.60000}", wrong.len(), wrong.join("\n"));
    ensure!(picked > 100_000, "{picked} frames were picked only");
    Ok(())
}

/// How often the expressions pick a frame, and where libpcap does not agree.
fn agree(expressions: &[&str], frames: &[Vec<u8>]) -> (u64, Vec<String>) {
    let mut picked = 0;
    let mut wrong = Vec::new();
    for expression in expressions {
        for program in PROGRAMS {
            let result = load(expression, program).and_then(|loaded| match loaded {
                Some((loaded, classic)) => compare(&loaded, &classic, program.0, frames),
                None => Ok(0),
            });
            match result {
                Ok(count) => picked += count,
                Err(error) => wrong.push(format!("'{expression}': {error:#.1200}")),
            }
        }
    }
    (picked, wrong)
}

fn compare(loaded: &Loaded, classic: &[Instruction], program: Program, frames: &[Vec<u8>]) -> Result<u64> {
    let outgoing = program == Program::Tc { outgoing: true };
    let oracle = Oracle::new(classic, outgoing, if program == Program::Socket { 0 } else { LO });
    let mut picked = 0;
    for (number, frame) in frames.iter().enumerate() {
        if program != Program::Socket && !TEST_RUN_TAKES.contains(&frame.len()) {
            continue;
        }
        let seen = if program == Program::CgroupSkb { &frame[ETHERNET..] } else { frame };
        let (ours, theirs) = (loaded.picks(frame)?, oracle.picks(seen));
        if ours != theirs {
            bail!("{program:?}: libpcap says {theirs} of frame {number}, {seen:02x?}\n{classic:x?}");
        }
        picked += u64::from(ours);
    }
    Ok(picked)
}

fn agrees_on_random_programs(_: &Lab) -> Result<()> {
    const PROGRAMS: u64 = 10_000;
    const FRAMES: usize = 20;
    let frames = frames();
    let try_one = |seed: u64| {
        let classic = random::program(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let some: Vec<_> = (0..FRAMES).map(|_| frames[random.usize(..frames.len())].clone()).collect();
        [Program::Tc { outgoing: false }, Program::Socket]
            .into_iter()
            .map(|program| compare(&program.load(&classic)?, &classic, program, &some))
            .sum::<Result<u64>>()
            .with_context(|| format!("the random program {seed}: {classic:x?}"))
    };
    let picked = thread::scope(|scope| {
        let odd = scope.spawn(|| (1..PROGRAMS).step_by(2).map(try_one).sum::<Result<u64>>());
        let even = (0..PROGRAMS).step_by(2).map(try_one).sum::<Result<u64>>();
        let odd = odd.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        anyhow::Ok(even? + odd?)
    })?;
    ensure!(picked > 10_000, "{picked} frames were picked only");
    Ok(())
}

/// Sends the frames in a file, each after its length in two bytes, by the device.
const SEND: &str = "
import socket, sys
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind((sys.argv[1], 0))
data = open(sys.argv[2], 'rb').read()
while data:
    length = int.from_bytes(data[:2], 'big')
    sender.send(data[2:2 + length])
    data = data[2 + length:]
";

/// In the namespace: sends frames, and waits until the host has sent some too.
const EXCHANGE: &str = r#"
device=$(ls /sys/class/net | grep nscap)
python3 -c "$1" $device "$2" && echo sent && read line
"#;

/// Expressions for what both sides send each other; those with a tag count too.
const ON_THE_WAY: &[&str] = &[
    "tcp",
    "udp port 53",
    "vlan",
    "vlan 10",
    "vlan and ip",
    "vlan and vlan",
    "vlan 100 and tcp",
    "not vlan",
    "ether[12:2] = 0x8100",
    "ether[14:2] & 0xfff = 10",
    "ether[12:4] > 0x81000000",
    "ether[13:4] != 0",
    "ether[11:4] & 0xff != 0",
    "ether[ether[0]&15:4] > 1000",
    "vlan and ether[ether[5]&15:2] > 100",
    "ip6",
    "arp",
    "len > 100",
    "less 60",
    "greater 1000",
    "inbound and vlan",
    "outbound and ip",
];

fn whole_path(lab: &Lab) -> Result<()> {
    // The kernel drops what has not the tag that it says it has.
    let frames: Vec<_> = frames().into_iter().filter(|frame| (60..1500).contains(&frame.len())).collect();
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| packed(frame)).collect();
    let file = lab.dir().join("frames");
    fs::write(&file, bytes)?;
    let file = file.to_str().context("the lab's path is not text")?;

    let all = exchange(lab, file, &[])?;
    let count = all.packets("frame")?.len();
    ensure!(count >= 2 * frames.len(), "{count} packets in the trace, of {} sent each way", frames.len());
    let [outbound, inbound] =
        ["outbound", "inbound"].map(|direction| exchange(lab, file, &["-f", direction]));
    let (outbound, inbound) = (outbound?, inbound?);
    let ways = [frames_of(&outbound, "")?, frames_of(&inbound, "")?];
    ensure!(ways.concat() == frames_of(&all, "")?, "the two directions are not the whole");
    ensure!(ways.iter().all(|way| way.len() >= frames.len()), "frames are missing in a direction");

    let mut picked = 0;
    for expression in ON_THE_WAY {
        let trace = exchange(lab, file, &["-f", expression])?;
        // A file does not tell tcpdump of the direction.
        let theirs = match expression.split_once("bound and ") {
            Some(("in", rest)) => frames_of(&inbound, rest)?,
            Some((_, rest)) => frames_of(&outbound, rest)?,
            None => frames_of(&all, expression)?,
        };
        let ours = frames_of(&trace, "")?;
        ensure!(ours == theirs, "'{expression}': {} packets, tcpdump picks {}", ours.len(), theirs.len());
        picked += ours.len();
    }
    ensure!(picked > 5000, "{picked} packets were picked only");
    Ok(())
}

fn packed(frame: &[u8]) -> Vec<u8> {
    let length = u16::try_from(frame.len()).unwrap_or_default();
    [&length.to_be_bytes()[..], frame].concat()
}

/// The same frames go out of the namespace, and then into it.
fn exchange(lab: &Lab, file: &str, options: &[&str]) -> Result<Trace> {
    let program = ["sh", "-c", EXCHANGE, "sh", SEND, file];
    let mut run = lab.nsntrace(options.iter().chain(&program))?.told().spawn()?;
    run.says("sent")?;
    let links = lab.host(["ip", "-o", "link"])?.output()?;
    let device = links.split([' ', '@']).find(|word| word.starts_with("nsgw")).context("no link")?;
    lab.host(["python3", "-c", SEND, device, file])?.output()?;
    drop(run.stdin_pipe()?);
    Ok(run.wait()?.trace())
}

/// The bytes of the frames that tcpdump picks.
pub fn frames_of(trace: &Trace, expression: &str) -> Result<Vec<String>> {
    let mut tcpdump = Command::new("tcpdump");
    let output = tcpdump.args(["-n", "-t", "-xx", "-q", "-r"]).arg(trace.path()).arg(expression).output()?;
    ensure!(output.status.success(), "tcpdump: {}", String::from_utf8_lossy(&output.stderr));
    let mut frames = Vec::<String>::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.strip_prefix("\t0x").and_then(|line| line.split_once(':')) {
            Some((_, bytes)) => frames.last_mut().context("bytes of nothing")?.push_str(bytes),
            None => frames.push(String::new()),
        }
    }
    Ok(frames)
}

/// Segmentation is the device's, and the request lies in a part of the packet that is none of its head.
fn gets_exactly_the_request(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let get = "tcp[((tcp[12]&0xf0)>>2):4]=0x47455420";
    let done = lab.nsntrace(["-f", get, "curl", "-s", "-o", "page", &web.url])?.run()?.exited(0)?;
    ensure!(fs::read(done.dir.join("page"))? == web.body, "curl did not get what was served");
    assert_eq!(done.captured()?, 1);
    let requests = done.trace().fields("frame", &["http.request.method", "http.request.uri"])?;
    assert_eq!(requests, [["GET", "/data.bin"]]);
    Ok(())
}

fn large_packets(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let run = |filter: &str| {
        let done = lab.nsntrace(["-s", "60", "-f", filter, "curl", "-s", "-o", "page", &web.url])?.run()?;
        done.exited(0)?.trace().packets("frame")
    };
    let large = run("greater 20001")?;
    assert!(!large.is_empty() && large.iter().all(|packet| packet.len > 20_000), "{large:?}");
    assert!(large.iter().all(|packet| packet.captured == 60), "{large:?}");
    // The filter sees what the snapshot does not keep.
    let deep = run("ip[20000] >= 0")?;
    assert!(!deep.is_empty() && deep.iter().all(|packet| packet.len > 20_000), "{deep:?}");
    Ok(())
}

fn books_balance(lab: &Lab) -> Result<()> {
    let sink = lab.udp_sink(9)?;
    let sender = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  for n in range(5000): s.sendto(b'x' * (n % 100), ('203.0.113.7', 9))";
    let done = lab.nsntrace(["-v", "-f", "udp and len < 92", "python3", "-c", sender])?.run()?.exited(0)?;
    drop(sink);
    // Of every hundred, those with less than 50 bytes of payload.
    assert_eq!(done.captured()?, 2500);
    assert_eq!(done.trace().count()?, 2500);
    let line = "2500 matched, 2500 captured, 0 dropped";
    assert!(done.stderr.contains(line), "{}", done.stderr);
    let filtered = nsntrace_tests::number_before(
        done.stderr.lines().last().unwrap_or_default(),
        " packets filtered out",
    )?;
    assert!((2500..2520).contains(&filtered), "{}", done.stderr);
    Ok(())
}

fn refusals_change_nothing(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    for (expression, reason) in [
        ("tcp prot 80", "syntax error"),
        ("ip and ip6", "expression rejects all packets"),
        ("host no.such.name.invalid", "unknown host"),
        ("port no-such-service", "unknown port"),
        (&"(".repeat(20_000), "memory exhausted"),
        ("ether host 1.2.3.4", "illegal link layer address"),
    ] {
        let done = lab.nsntrace(["-f", expression, "true"])?.run()?;
        let complaint = done.complaint()?;
        assert!(complaint.contains(reason), "{complaint:.300}");
        // No more of it than can be read.
        assert!(complaint.len() < 400, "{complaint}");
        let start: String = expression.chars().take(100).collect();
        assert!(complaint.contains(&start), "{complaint:.300}");
    }
    // None, as for tcpdump.
    lab.nsntrace(["-f", " ", "true"])?.run()?.exited(0)?;
    lab.assert_clean(&before)
}

/// Its loops are what makes a filter large for the verifier.
fn too_large_is_told(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let chains: Vec<_> = (0..60).map(|n| format!("ip6 protochain {n}")).collect();
    let done = lab.nsntrace(["-f", &chains.join(" or "), "true"])?.run()?.exited(1)?;
    let reason = done.stderr.lines().last().unwrap_or_default();
    assert!(reason.contains("too large") && reason.contains("the verifier says: "), "{reason}");
    lab.assert_clean(&before)
}

/// libpcap would take half a minute and more, but for what is done about it.
fn slow_to_optimise(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let hosts = (0..800).map(|n| format!("host 10.{}.{}.1 or ", n / 200, n % 200)).collect::<String>();
    let filter = format!("{hosts}src host 203.0.113.7");
    let run = lab.nsntrace(["-f", &filter, "curl", "-s", "-o", "page", &web.url])?;
    let done = run.limit(Duration::from_secs(400)).run()?.exited(0)?;
    let trace = done.trace();
    assert_eq!(trace.count_of("ip.src == 203.0.113.7")?, trace.packets("frame")?.len());
    assert!(done.captured()? > 10, "{}", done.stderr);
    Ok(())
}

fn libpcap_is_needed_for_it_alone(lab: &Lab) -> Result<()> {
    let hide = "for file in /usr/lib/*/libpcap.so.*; do mount --bind /dev/null $file; done";
    lab.sh(hide)?;
    let before = lab.snapshot()?;
    let told = lab.nsntrace(["-f", "tcp", "true"])?.run()?.exited(1)?.stderr;
    let advice =
        "nsntrace: -f 'tcp': libpcap is needed for filters: install the package libpcap0.8, or libpcap (";
    ensure!(told.starts_with(advice) && told.ends_with(")\n") && told.lines().count() == 1, "{told}");
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    let told = check::check(lab, &[], &[])?.exited(0)?.text();
    let (state, text) = check::line(&told, "libpcap")?;
    ensure!(state == "none" && text.contains("install the package"), "{text}");
    lab.assert_clean(&before)
}
