//! Limits of a capture: of each packet, of their number, of time, of memory.

use std::fs;
use std::io::Write;

use anyhow::{Result, bail};
use nsntrace_tests::{Lab, SERVER_ADDRESS, SOON, Trace, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    snaplen_cuts_and_keeps_the_length,
    count_ends_the_capture_alone,
    count_closes_the_file,
    duration_ends_the_capture_alone,
    buffer_size,
];

fn snaplen_cuts_and_keeps_the_length(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let done = lab.nsntrace(["-s", "100", "curl", "-s", "-o", "page", &web.url])?.run()?.exited(0)?;
    let packets = done.trace().packets("frame")?;
    assert!(packets.iter().all(|packet| packet.captured == packet.len.min(100)), "{packets:?}");
    let bytes: u32 = packets.iter().map(|packet| packet.len).sum();
    assert!(bytes > 3_000_000, "only {bytes} bytes on the wire");
    Ok(())
}

fn count_ends_the_capture_alone(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let program = r#"curl -s -o /dev/null "$1"; curl -s -o page "$1" || exit 99; exit 3"#;
    let done = lab.nsntrace(["-c", "5", "sh", "-c", program, "sh", &web.url])?.run()?.exited(3)?;
    assert_eq!(done.trace().count()?, 5);
    assert_eq!(done.captured()?, 5);
    assert!(fs::read(done.dir.join("page"))? == web.body, "the network ended with the capture");
    Ok(())
}

/// The file is whole while the program still runs.
fn count_closes_the_file(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let program = r#"curl -s -o page "$1"; echo ready; read line"#;
    let mut run = lab.nsntrace(["-c", "7", "sh", "-c", program, "sh", &web.url])?.told().spawn()?;
    run.says("ready")?;
    let trace = Trace::new(run.dir().join("nsntrace.pcap"));
    until("seven packets in the file", SOON, || {
        // Unreadable as long as it is being written.
        Ok((trace.count().unwrap_or(0) == 7).then_some(()))
    })?;
    assert!(run.is_alive()?, "it ended with the capture");
    run.stdin_pipe()?.write_all(b"\n")?;
    run.wait()?.exited(0)?;
    assert_eq!(trace.count()?, 7);
    Ok(())
}

/// Talks for three seconds, then exits with 9 if all was answered.
const TALK: &str = "
import socket, sys, time
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(10)
client.connect((sys.argv[1], 7))
end = time.monotonic() + 3
while time.monotonic() < end:
    client.send(b'ping')
    client.recv(100)
    time.sleep(0.02)
sys.exit(9)
";

fn duration_ends_the_capture_alone(lab: &Lab) -> Result<()> {
    let _server = lab.udp_echo(7)?;
    let words = ["--duration", "1", "python3", "-c", TALK, SERVER_ADDRESS];
    let packets = lab.nsntrace(words)?.run()?.exited(9)?.trace().packets("udp")?;
    let (Some(first), Some(last)) = (packets.first(), packets.last()) else { bail!("no packets") };
    let span = last.time - first.time;
    assert!(span < 2_000_000_000, "{span} ns of packets in a capture of one second");
    Ok(())
}

fn buffer_size(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    for size in ["64", "1000", "262144"] {
        lab.nsntrace(["-B", size, "true"])?.run()?.exited(0)?;
    }
    for size in ["0", "-1", "x", "99999999999999999999", ""] {
        let done = lab.nsntrace([format!("--buffer-size={size}"), "true".into()])?.run()?;
        let line = done.complaint()?;
        assert!(line.contains("-B") || line.contains("--buffer-size"), "{line}");
    }
    lab.assert_clean(&before)
}
