//! `-o -` is live: a packet reaches the reader while the program goes on.

use std::io::{Read, Write};
use std::process::ChildStdout;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nsntrace_tests::{Lab, SERVER_ADDRESS, SOON};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![each_packet_is_there_at_once, in_a_namespace_of_time];

/// Sends a datagram for each line on stdin.
const SENDER: &str = "
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect((sys.argv[1], 9))
for line in sys.stdin:
    sender.send(line.encode())
";

/// A packet from a trace that is read while it is written.
struct Arrival {
    delay: Duration,
    bytes: Vec<u8>,
}

fn each_packet_is_there_at_once(lab: &Lab) -> Result<()> {
    median_is_short(lab, &[])
}

/// The boot was later there than it was for the kernel, which stamps packets.
fn in_a_namespace_of_time(lab: &Lab) -> Result<()> {
    median_is_short(lab, &["unshare", "--time", "--fork", "--boottime=-5"])
}

/// The program waits until the packet before has been read: a trace that is not live comes to a standstill.
fn median_is_short(lab: &Lab, starter: &[&str]) -> Result<()> {
    let _server = lab.udp_sink(9)?;
    let words = ["-o", "-", "python3", "-u", "-c", SENDER, SERVER_ADDRESS];
    let mut run = lab.nsntrace_by(starter, words)?.told().piped().spawn()?;
    let packets = arrivals(run.stdout_pipe()?);
    let mut program = run.stdin_pipe()?;
    let mut delays = Vec::new();
    for number in 0..40 {
        let line = format!("packet {number}\n");
        program.write_all(line.as_bytes())?;
        // ARP comes between.
        let is_ours = |packet: &Arrival| packet.bytes.ends_with(line.as_bytes());
        let packet = std::iter::from_fn(|| packets.recv_timeout(SOON).ok()).find(is_ours);
        delays.push(packet.with_context(|| format!("{line:?} did not come within {SOON:?}"))?.delay);
    }
    drop(program);
    run.wait()?.exited(0)?;
    delays.sort_unstable();
    let median = delays[delays.len() / 2];
    println!("live: a packet is with the reader after {median:?} (median)");
    // Ten milliseconds are the aim; a busy machine may need more, a buffer that fills would need for ever.
    assert!(median < Duration::from_millis(100), "{median:?}");
    Ok(())
}

/// Reads the trace on a thread of its own, so that its silence can be noticed.
fn arrivals(mut trace: ChildStdout) -> Receiver<Arrival> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        trace.read_exact(&mut [0; 24])?;
        // The end of the trace ends it, and so does a test that no longer listens.
        while sender.send(arrival(&mut trace)?).is_ok() {}
        anyhow::Ok(())
    });
    receiver
}

/// The next record of a nanosecond pcap.
fn arrival(trace: &mut impl Read) -> Result<Arrival> {
    let mut header = [[0; 4]; 4];
    trace.read_exact(header.as_flattened_mut())?;
    let [seconds, nanoseconds, captured, _] = header.map(u32::from_ne_bytes);
    let mut bytes = vec![0; captured.try_into()?];
    trace.read_exact(&mut bytes)?;
    let taken = UNIX_EPOCH + Duration::new(seconds.into(), nanoseconds);
    Ok(Arrival { delay: SystemTime::now().duration_since(taken).unwrap_or_default(), bytes })
}
