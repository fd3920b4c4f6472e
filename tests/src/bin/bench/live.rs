//! How long a packet takes to who reads the trace while it is made.

use std::{
    io::{self, BufReader, Read},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use nsntrace_tests::{Lab, SERVER_ADDRESS, beside};

use crate::{
    namespace::Namespace,
    pcap::Packets,
    report::{Row, Who},
    statistics::{Estimate, estimate, median, quantile},
};

/// Packets of a round.
const COUNT: usize = 1000;

/// Microseconds between two of them, on average.
const PAUSE: &str = "3000";

/// What the median and the 99th percentile may be, in milliseconds.
const GOALS: [f64; 2] = [10.0, 25.0];

/// `-o -`, beside tcpdump with `-U`, which it needs for that.
pub fn bench(rounds: usize) -> Result<Vec<Row>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.extend(of_nsntrace()?);
        theirs.extend(of_tcpdump()?);
    }
    let row = |measure: &str, figure: fn(&[f64]) -> f64, goal: f64| {
        let [theirs, ours]: [Estimate; 2] = [estimate(&theirs, figure), estimate(&ours, figure)];
        Row::new("live, to a reader of `-o -`", measure)
            .with(Who::Tcpdump, theirs)
            .with(Who::Nsntrace, ours)
            .at_most("ms", ours, goal)
    };
    Ok(vec![
        row("ms, median", median, GOALS[0]),
        row("ms, 99th percentile", |sample| quantile(sample, 0.99), GOALS[1]),
    ])
}

fn of_nsntrace() -> Result<Vec<f64>> {
    let lab = Lab::new()?;
    let _sink = lab.udp_sink(9)?;
    let server = format!("{SERVER_ADDRESS}:9");
    let job = lab.nsntrace(["-o", "-", &beside("drip")?, &server, &COUNT.to_string(), PAUSE])?;
    let mut trace = job.piped().spawn()?;
    let mut pipe = trace.stdout_pipe()?;
    let delays = delays(&mut pipe)?;
    // It goes on to its end.
    io::copy(&mut pipe, &mut io::sink())?;
    trace.wait()?.exited(0)?;
    Ok(delays)
}

fn of_tcpdump() -> Result<Vec<f64>> {
    let mut namespace = Namespace::new(&["-c", "1"])?;
    namespace.capture_ends()?;
    let device = namespace.device();
    let dump = ["tcpdump", "-i", &device, "--time-stamp-precision=nano", "-U", "-w", "-"];
    let mut dump = namespace.inside(&dump)?.piped().spawn()?;
    let reader = dump.stdout_pipe()?;
    let reader = thread::spawn(move || delays(reader));
    dump.complains("listening on")?;
    namespace.sender.ask(&format!("{} {SERVER_ADDRESS}:9 {COUNT} {PAUSE}", beside("drip")?))?;
    let delays = reader.join().map_err(|_| anyhow!("the reader panicked"))?;
    dump.signal(Signal::SIGINT)?;
    namespace.end()?;
    delays
}

/// Milliseconds from the time of each packet of `drip` until it has been read, of all that it sends.
fn delays(pipe: impl Read) -> Result<Vec<f64>> {
    let mut packets = Packets::new(BufReader::new(pipe))?;
    let mut delays = Vec::new();
    while delays.len() < COUNT {
        let packet = packets.next()?.with_context(|| format!("only {} packets came", delays.len()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        if packet.drop().is_some() {
            delays.push((i64::try_from(now.as_nanos())? - packet.time) as f64 / 1e6);
        }
    }
    Ok(delays)
}
