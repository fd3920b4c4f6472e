//! The trace of a download, judged from outside the guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::guest::Guest;
use crate::shell::{quoted, stdout};

const SCRIPT: &str = include_str!("scenario.sh");
const COMPLAINTS: [&str; 5] =
    ["WARNING: ", "BUG: ", "Oops: ", "general protection fault", "unregister_netdevice: waiting"];

/// What a good trace was like.
pub(super) struct Verdict {
    bytes: usize,
    packets: usize,
    elapsed: Duration,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, packets, elapsed } = self;
        write!(f, "{bytes} bytes in {packets} packets, host clean, {} s", elapsed.as_secs())
    }
}

/// Has `nsntrace` trace a download in `guest` and checks the trace, the download and what is left of the run.
pub(super) fn run(guest: &Guest, nsntrace: &Path) -> Result<Verdict> {
    let exchange = guest.kernel.fresh_dir("exchange")?;
    fs::write(exchange.join("scenario.sh"), SCRIPT).context("cannot write scenario.sh")?;
    let result = guest.run(&format!("exec sh /exchange/scenario.sh {}", quoted(nsntrace)), &exchange)?;
    ensure!(result.status == 0, "the scenario ended with status {}\n{}", result.status, result.output);

    check_kernel(&result.console)?;
    let left = Left { folder: exchange };
    left.check_status()?;
    left.check_host()?;
    let bytes = left.check_download()?;
    let packets = left.check_packets()?;
    left.check_clock()?;
    Ok(Verdict { bytes, packets, elapsed: result.elapsed })
}

/// Nothing that nsntrace does may make a kernel complain.
fn check_kernel(console: &str) -> Result<()> {
    let complaint = console.lines().position(|line| COMPLAINTS.iter().any(|words| line.contains(words)));
    if let Some(start) = complaint {
        let lines: Vec<&str> = console.lines().skip(start).take(20).collect();
        bail!("the kernel complains:\n{}", lines.join("\n"));
    }
    Ok(())
}

/// What the scenario left in the exchange folder.
struct Left {
    folder: PathBuf,
}

impl Left {
    fn check_status(&self) -> Result<()> {
        let status = self.text("status")?;
        ensure!(
            status.trim() == "0",
            "nsntrace ended with status {}\n{}",
            status.trim(),
            self.text("stderr")?
        );
        Ok(())
    }

    fn check_host(&self) -> Result<()> {
        let (before, after) = (self.text("before.txt")?, self.text("after.txt")?);
        let missing_in = |text: &str, line: &str| !text.lines().any(|other| other == line);
        let gone = before.lines().filter(|line| missing_in(&after, line)).map(|line| format!("- {line}"));
        let new = after.lines().filter(|line| missing_in(&before, line)).map(|line| format!("+ {line}"));
        let changes: Vec<String> = gone.chain(new).collect();
        ensure!(before == after, "the host is not as it was before:\n{}", changes.join("\n"));
        Ok(())
    }

    /// The file that was served, the one that curl wrote, and the one in the trace are the same. Returns its size.
    fn check_download(&self) -> Result<usize> {
        let objects = self.folder.join("objects");
        let export = format!("http,{}", objects.display());
        stdout(self.tshark().args(["-q", "--export-objects", &export]))?;
        let served = self.bytes("www/file")?;
        ensure!(self.bytes("got")? == served, "the download differs from the served file");
        ensure!(
            self.bytes("objects/file")? == served,
            "the download in the trace differs from the served file"
        );
        Ok(served.len())
    }

    /// No packet is cut, and there are as many as nsntrace says. Returns how many.
    fn check_packets(&self) -> Result<usize> {
        let fields = ["-T", "fields", "-e", "frame.len", "-e", "frame.cap_len"];
        let lengths = stdout(self.tshark().args(fields))?;
        for (index, line) in lengths.lines().enumerate() {
            let (full, kept) = line.split_once('\t').context("tshark printed no two lengths")?;
            ensure!(full == kept, "packet {}: {kept} of {full} bytes were kept", index + 1);
        }
        let packets = lengths.lines().count();
        let stderr = self.text("stderr")?;
        if !stderr.lines().any(|line| line == format!("Finished capturing {packets} packets.")) {
            bail!("the trace has {packets} packets, but nsntrace says:\n{stderr}");
        }
        Ok(packets)
    }

    /// The program got what it would have got, and its trace follows the clock forward; where that is set back, the order
    /// of the packets counts.
    fn check_clock(&self) -> Result<()> {
        let (status, said) = (self.text("clock.status")?, self.text("clock.txt")?);
        ensure!(status.trim() == "7", "while the clock is set: status {}\n{said}", status.trim());
        let fields = ["-T", "fields", "-e", "frame.time_epoch"];
        let times =
            stdout(Command::new("tshark").arg("-r").arg(self.folder.join("clock.pcap")).args(fields))?;
        let times: Vec<f64> = times.lines().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(times.is_sorted(), "a trace during which the clock is set back is not in order: {times:?}");
        let (Some(first), Some(last)) = (times.first(), times.last()) else { bail!("no packets:\n{said}") };
        let hours = (last - first) / 3600.0;
        ensure!(
            (1.0..1.1).contains(&hours),
            "the clock was set an hour forward, the trace took {hours} hours"
        );
        Ok(())
    }

    fn tshark(&self) -> Command {
        let mut tshark = Command::new("tshark");
        tshark.arg("-r").arg(self.folder.join("trace.pcap"));
        tshark
    }

    fn text(&self, name: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(name)?).into_owned())
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}
