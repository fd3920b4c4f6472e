//! A million small packets: each is written, or counted as dropped.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nsntrace_tests::{Done, Lab, SERVER_ADDRESS};

use crate::{Case, cases};

pub const CASES: &[Case] =
    cases![books_balance, books_balance_of_a_small_buffer, nothing_is_lost_behind_the_end, reader_is_called];

const FLOOD: &str = env!("CARGO_BIN_EXE_flood");

const COUNT: u64 = 1_000_000;
/// Packets that the sender did not send: ARP, both ways.
const OTHERS: u64 = 10;

fn books_balance(lab: &Lab) -> Result<()> {
    let done = flood(lab, &[], r#"exec "$0" "$1" "$2""#)?;
    println!("flood: {} of {COUNT} packets dropped with the default buffer", done.dropped()?);
    Ok(())
}

fn books_balance_of_a_small_buffer(lab: &Lab) -> Result<()> {
    // Nobody empties the buffers during the second half, however slow the sender is.
    let script = r#"half=$(($2 / 2)); "$0" "$1" $half; kill -STOP $PPID; "$0" "$1" $half; kill -CONT $PPID"#;
    let done = flood(lab, &["-v", "-B", "64"], script)?;
    ensure!(done.dropped()? > 0, "nothing was dropped, so nothing was tried");
    ensure!(
        done.stderr.contains("nsntrace: ring buffer full"),
        "the kernel side said nothing:\n{}",
        done.stderr
    );
    println!("flood: {} of {COUNT} packets dropped with -B 64", done.dropped()?);
    Ok(())
}

/// Who wanted ten packets has them, whatever comes while the capture is taken away.
fn nothing_is_lost_behind_the_end(lab: &Lab) -> Result<()> {
    let _server = lab.udp_sink(9)?;
    // What has no payload is 42 bytes long, as ARP is, with 16 before it, and 24 before all. Each of the last datagrams would
    // fill the buffer.
    let script = "
import os, socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect((sys.argv[1], 9))
for _ in range(20):
    sender.send(b'')
while os.stat('x.pcap').st_size < 24 + 10 * (16 + 42):
    pass
for _ in range(100):
    sender.send(bytes(60000))
";
    let words = ["-o", "x.pcap", "-c", "10", "-B", "64", "python3", "-c", script, SERVER_ADDRESS];
    let done = lab.nsntrace(words)?.run()?.exited(0)?;
    assert_eq!((done.captured()?, done.dropped()?), (10, 0), "{}", done.stderr);
    Ok(())
}

/// Who takes the packets comes before the buffer is full, though it has not been away for long. Nobody else's work is waited for
/// here but by chance: one time has to be enough.
fn reader_is_called(lab: &Lab) -> Result<()> {
    const EXCHANGES: &str = "2000";
    let exchange = ["ping", "-q", "-f", "-c", EXCHANGES, "-s", "1400", SERVER_ADDRESS];
    let mut figures = Vec::new();
    for _ in 0..10 {
        let done = lab.nsntrace(["-B", "512"].iter().chain(&exchange))?.run()?.exited(0)?;
        figures.push((done.captured()?, done.dropped()?));
        if figures.last().is_some_and(|(written, dropped)| dropped < written) {
            return Ok(());
        }
    }
    bail!("written and dropped: {figures:?}")
}

/// What a script sends that is given the sender, the server and the number of packets.
fn flood(lab: &Lab, options: &[&str], script: &str) -> Result<Done> {
    let _server = lab.udp_sink(9)?;
    let program = ["sh", "-c", script, FLOOD, &format!("{SERVER_ADDRESS}:9"), &COUNT.to_string()];
    let job = lab.nsntrace(options.iter().chain(&program))?.limit(Duration::from_secs(120));
    let done = job.run()?.exited(0)?;
    let text = done.text();
    let sent: u64 = text.lines().filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).sum();
    ensure!(sent == COUNT, "the senders sent {text}");
    let (written, dropped) = (done.captured()?, done.dropped()?);
    let info = done.trace().info()?;
    assert_eq!(info.packets, written, "the printed count is not the file's");
    assert!(info.in_order, "the packets are not in the order of time");
    let counted = written + dropped;
    assert!((COUNT..=COUNT + OTHERS).contains(&counted), "{written} written + {dropped} dropped = {counted}");
    Ok(done)
}
