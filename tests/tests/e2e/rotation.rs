//! A trace in several files: by size, by time, and by both, as tcpdump has it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{Done, Lab, Pcapng, Running, SERVER_ADDRESS, SOON, Trace, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    by_size_as_tcpdump,
    by_size_in_a_ring,
    each_file_is_a_pcapng_of_its_own,
    by_time_without_traffic,
    by_time_without_a_gap,
    by_time_into_the_same_file,
    by_size_and_time,
    count_is_of_all_files,
    files_belong_to_the_invoking_user,
    next_file_that_may_not_be_written,
    disk_full,
    wrong_words,
];

/// A user with no rights here: what SUDO_UID and SUDO_GID say.
const USER: u32 = 65_534;

/// Bytes of a pcap before its first packet.
const HEADER: usize = 24;

/// A limit for what takes a few seconds on an idle machine.
const PERIODS: Duration = SOON.saturating_mul(3);

/// Downloads twice.
const TWICE: &str = r#"curl -s -o page "$1"; curl -s -o page "$1""#;

/// The files in a folder whose names begin with `x`.
fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('x') {
            files.insert(name, entry.path());
        }
    }
    Ok(files)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    Ok(files(folder)?.into_keys().collect())
}

fn twice(lab: &Lab, options: &[&str]) -> Result<Done> {
    let web = lab.web()?;
    let program = ["sh", "-c", TWICE, "sh", &web.url];
    lab.nsntrace(options.iter().chain(&program))?.run()?.exited(0)
}

/// tcpdump makes the same files, byte for byte, from all packets in one.
fn by_size_as_tcpdump(lab: &Lab) -> Result<()> {
    for (files_option, first) in [(&[][..], "x.pcap"), (&["-W", "20"], "x.pcap00")] {
        let options = [&["-o", "x.pcap", "-C", "1"], files_option].concat();
        let done = twice(lab, &options)?;
        let ours = files(&done.dir)?;
        assert!(ours.len() > 4 && ours.contains_key(first), "{:?}", ours.keys());
        let mut all = fs::read(&ours[first])?;
        for number in 1..ours.len() {
            let path = ours.get(&format!("x.pcap{number}")).or(ours.get(&format!("x.pcap{number:02}")));
            all.extend(&fs::read(path.context("a number is left out")?)?[HEADER..]);
        }
        fs::write(done.dir.join("all"), all)?;
        assert_eq!(done.trace_at("all").count()?, done.captured()?);

        let reference = done.dir.join("reference");
        fs::create_dir(&reference)?;
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-Z", "root", "--time-stamp-precision=nano", "-r", "../all", "-w"]).args(&options[1..]);
        let output = tcpdump.current_dir(&reference).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(names(&reference)?, names(&done.dir)?);
        for (name, path) in files(&reference)? {
            ensure!(fs::read(path)? == fs::read(&ours[&name])?, "{name} is not as tcpdump makes it");
        }
    }
    Ok(())
}

/// The oldest is overwritten, so that two files follow each other without a gap.
fn by_size_in_a_ring(lab: &Lab) -> Result<()> {
    let done = twice(lab, &["-o", "x.pcap", "-C", "1", "-W", "2"])?;
    assert_eq!(names(&done.dir)?, ["x.pcap0", "x.pcap1"]);
    let mut parts = Vec::new();
    for name in ["x.pcap0", "x.pcap1"] {
        let packets = done.trace_at(name).packets("frame")?;
        parts.push((packets.first().context("an empty file")?.time, packets.len() as u64, name));
    }
    parts.sort_unstable();
    let size = done.dir.join(parts[0].2).metadata()?.len();
    assert!((1_000_001..1_100_000).contains(&size), "the older one has {size} bytes");
    assert!(parts[0].1 + parts[1].1 < done.captured()?, "nothing was overwritten");
    Ok(())
}

/// Each tells its own part of what was lost.
fn each_file_is_a_pcapng_of_its_own(lab: &Lab) -> Result<()> {
    let _server = lab.udp_sink(9)?;
    let program = [env!("CARGO_BIN_EXE_flood"), &format!("{SERVER_ADDRESS}:9"), "100000"];
    let words = ["-o", "x.pcapng", "-C", "1", "-W", "100", "-B", "64"].iter().chain(&program);
    let done = lab.nsntrace(words)?.run()?.exited(0)?;
    let (mut captured, mut dropped, mut before) = (0, 0, 0);
    let all = files(&done.dir)?;
    for (name, path) in &all {
        let file = Pcapng::read(path)?;
        let [(0, statistics)] = file.statistics[..] else { panic!("{name}: {:?}", file.statistics) };
        assert_eq!(statistics.delivered, file.packets.len() as u64, "{name}");
        assert!(before <= statistics.from, "{name} begins before the one before it has ended");
        let during = statistics.from..=statistics.to;
        assert!(file.packets.iter().all(|packet| during.contains(&packet.time)), "{name}: {statistics:?}");
        assert_eq!(Trace::new(path.clone()).info()?.kind, "pcapng");
        captured += statistics.delivered;
        dropped += statistics.dropped.context("no count of losses")?;
        before = statistics.to;
    }
    assert!(all.len() > 2, "{:?}", all.keys());
    assert_eq!((captured, dropped), (done.captured()?, done.dropped()?));
    Ok(())
}

/// A program that waits to be told to end.
const WAIT: [&str; 3] = ["sh", "-c", "read line"];

fn let_end(mut run: Running) -> Result<Done> {
    run.stdin_pipe()?.write_all(b"\n")?;
    run.wait()?.exited(0)
}

/// Names are local times, the number of files ends the capture, and the program goes on.
fn by_time_without_traffic(lab: &Lab) -> Result<()> {
    const ZONE: &str = "LAB-05:30";
    let before = lab.snapshot()?;
    let options = ["-o", "x%s_%H%z", "-G", "1", "-W", "2"];
    let mut run = lab.nsntrace(options.iter().chain(&WAIT))?.env("TZ", ZONE).told().spawn()?;
    run.complains("Finished capturing 0 packets.")?;
    assert!(run.is_alive()?, "it ended with the capture");
    let done = let_end(run)?;
    let names = names(&done.dir)?;
    assert_eq!(names.len(), 2, "{names:?}");
    for name in names {
        let (seconds, local) = name[1..].split_once('_').context("a name of another form")?;
        let date =
            Command::new("date").env("TZ", ZONE).args(["+%H%z", "-d", &format!("@{seconds}")]).output()?;
        assert_eq!(local, String::from_utf8(date.stdout)?.trim());
        assert!(local.ends_with("+0530"), "{local}");
        assert_eq!(done.trace_at(&name).count()?, 0);
    }
    lab.assert_clean(&before)
}

/// Sends a datagram every few milliseconds until it is told to end.
const TALK: &str = "
import select, socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while not select.select([sys.stdin], [], [], 0.005)[0]:
    sender.sendto(b'a word', (sys.argv[1], 9))
";

fn by_time_without_a_gap(lab: &Lab) -> Result<()> {
    let _server = lab.udp_sink(9)?;
    let words = ["-o", "x%s", "--format", "pcapng", "-G", "1", "python3", "-c", TALK, SERVER_ADDRESS];
    let run = lab.nsntrace(words)?.told().spawn()?;
    let folder = run.dir().to_owned();
    until("a third file", PERIODS, || Ok((files(&folder)?.len() > 2).then_some(())))?;
    let done = let_end(run)?;
    let (mut packets, mut before) = (0, 0);
    for (number, (name, path)) in files(&done.dir)?.into_iter().enumerate() {
        let file = Pcapng::read(&path)?;
        let second: u64 = name[1..].parse()?;
        for packet in &file.packets {
            assert!(packet.time >= before, "{name} overlaps the one before");
            // The first is called after the second in which the trace was made ready.
            let age = packet.time / 1_000_000_000 - second;
            assert!(number == 0 || age <= 1, "a packet of {} in {name}", packet.time);
        }
        before = file.statistics.first().context("no statistics")?.1.to;
        packets += file.packets.len() as u64;
    }
    assert!(packets > 20, "only {packets} packets");
    assert_eq!(packets, done.captured()?);
    Ok(())
}

/// As tcpdump does where the name says nothing of the time: with one file that is an end after so long.
fn by_time_into_the_same_file(lab: &Lab) -> Result<()> {
    let options = ["-o", "x100%", "-G", "1", "-W", "2"];
    let mut run = lab.nsntrace(options.iter().chain(&WAIT))?.told().spawn()?;
    run.complains("Finished capturing")?;
    let done = let_end(run)?;
    assert_eq!(names(&done.dir)?, ["x100%"]);
    assert_eq!(done.trace_at("x100%").count()?, 0);
    Ok(())
}

/// Numbers begin anew with each period; -W tells how many digits they have, and ends nothing.
fn by_size_and_time(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let program = r#"curl -s -o page "$1"; read line; curl -s -o page "$1"; read line"#;
    let options = ["-o", "x%s-", "-C", "1", "-G", "3", "-W", "11", "sh", "-c", program, "sh", &web.url];
    let mut run = lab.nsntrace(options)?.told().spawn()?;
    let folder = run.dir().to_owned();
    let periods = |least: usize| {
        let mut periods: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in names(&folder)? {
            let (period, number) = name.split_once('-').context("a name of another form")?;
            periods.entry(period.to_owned()).or_default().push(number.to_owned());
        }
        Ok((periods.len() >= least).then_some(periods))
    };
    until("a second period", PERIODS, || periods(2))?;
    let mut program = run.stdin_pipe()?;
    program.write_all(b"\n")?;
    until("a third period", PERIODS, || periods(3))?;
    program.write_all(b"\n")?;
    let done = run.wait()?.exited(0)?;
    let all = periods(3)?.context("they are gone")?;
    for (period, numbers) in &all {
        let expected: Vec<_> = (0..numbers.len()).map(|number| format!("{number:02}")).collect();
        assert_eq!(*numbers, expected, "{period}");
    }
    assert!(all.values().any(|numbers| numbers.len() > 1), "{all:?}");
    let mut packets = 0;
    for path in files(&done.dir)?.into_values() {
        packets += Trace::new(path).count()?;
    }
    assert_eq!(packets, done.captured()?);
    Ok(())
}

fn count_is_of_all_files(lab: &Lab) -> Result<()> {
    let _server = lab.udp_sink(9)?;
    let program = [env!("CARGO_BIN_EXE_flood"), &format!("{SERVER_ADDRESS}:9"), "30000"];
    let words = ["-o", "x.pcap", "-C", "1", "-c", "20000"].iter().chain(&program);
    let done = lab.nsntrace(words)?.run()?.exited(0)?;
    assert_eq!(done.captured()?, 20_000);
    let mut packets = Vec::new();
    for path in files(&done.dir)?.into_values() {
        packets.push(Trace::new(path).count()?);
    }
    assert!(packets.len() > 1 && packets.iter().all(|packets| *packets > 0), "{packets:?}");
    assert_eq!(packets.iter().sum::<u64>(), 20_000);
    Ok(())
}

/// A download into files of 1 MB by a user who called sudo and owns the folder.
fn by_sudo(lab: &Lab, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<Done> {
    let web = lab.web()?;
    let words = ["-o", "x.pcap", "-C", "1", "curl", "-s", "-o", "/dev/null", &web.url];
    let job = lab.nsntrace(words)?;
    let job = job.env("SUDO_UID", &USER.to_string()).env("SUDO_GID", &USER.to_string());
    chown(job.dir(), Some(USER), Some(USER))?;
    prepare(job.dir())?;
    job.run()?.exited(0)
}

fn files_belong_to_the_invoking_user(lab: &Lab) -> Result<()> {
    let done = by_sudo(lab, |_| Ok(()))?;
    let files = files(&done.dir)?;
    assert!(files.len() > 2, "{:?}", files.keys());
    for (name, path) in files {
        let file = fs::metadata(path)?;
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (USER, USER, 0o600), "{name}");
    }
    Ok(())
}

/// Root could; the user may not. What is there is complete, and the program is not harmed.
fn next_file_that_may_not_be_written(lab: &Lab) -> Result<()> {
    let done = by_sudo(lab, |folder| Ok(fs::write(folder.join("x.pcap1"), "precious")?))?;
    let line = done.line_with("ermission denied")?;
    assert!(line.starts_with("nsntrace: ") && line.contains("x.pcap1"), "{line}");
    assert_eq!(fs::read_to_string(done.dir.join("x.pcap1"))?, "precious");
    assert_eq!(names(&done.dir)?, ["x.pcap", "x.pcap1"]);
    assert_eq!(done.trace_at("x.pcap").count()?, done.captured()?);
    Ok(())
}

fn disk_full(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let disk = lab.small_disk("2500k")?;
    for format in ["pcap", "pcapng"] {
        let file = format!("{disk}/x");
        let words = ["-o", &file, "--format", format, "-C", "1", "curl", "-s", "-o", "/dev/null", &web.url];
        let done = lab.nsntrace(words)?.run()?.exited(0)?;
        let line = done.line_with("No space left")?;
        assert!(line.starts_with("nsntrace: ") && line.contains("/x2: "), "{line}");
        let copy = lab.host(["sh", "-c", &format!("mv {disk}/* .")])?.run()?.exited(0)?;
        assert_eq!(names(&copy.dir)?, ["x", "x1", "x2"]);
        let mut packets = 0;
        for path in files(&copy.dir)?.into_values() {
            packets += Trace::new(path).count()?;
        }
        assert_eq!(packets, done.captured()?);
    }
    Ok(())
}

fn wrong_words(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let wrong = [
        (&["-W", "3"][..], "-C"),
        (&["-C", "0"], "-C"),
        (&["-G", "0"], "-G"),
        (&["-C", "1", "-W", "0"], "-W"),
        (&["-C", "1k"], "-C"),
        (&["-C", "1", "-o", "-"], "stdout"),
        (&["-G", "1", "-o", "-"], "stdout"),
        (&["-G", "1", "-o", "/dev/null"], "/dev/null"),
        (&["-G", "1", "-o", "%5000Y"], "too long"),
    ];
    for (options, word) in wrong {
        let done = lab.nsntrace(options.iter().chain(&["touch", "ran"]))?.run()?;
        let line = done.complaint()?;
        assert!(line.contains(word), "{line}");
        assert!(!done.dir.join("ran").exists(), "{options:?}: the program was run");
    }
    lab.assert_clean(&before)
}
