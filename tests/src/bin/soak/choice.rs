//! One trace, by chance: its options, its program, and its end.

use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::Signal;
use nsntrace_tests::Victim;

/// How a trace is ended.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// By its program, with success.
    Itself,
    /// By a signal to the tracer, after so long.
    Signal(Signal, Duration),
    /// By a SIGKILL, after so long.
    Kill(Victim, Duration),
}

/// A trace that is to be tried.
#[derive(Clone, Debug)]
pub struct Choice {
    /// What stands behind `nsntrace`.
    pub words: Vec<String>,
    /// Its end.
    pub end: End,
}

/// Options: of each line none or one.
const OPTIONS: [&[&[&str]]; 9] = [
    &[&["-v"], &["-q"]],
    &[&["-s", "100"]],
    &[&["-B", "128"], &["-B", "1024"]],
    &[&["-f", "tcp port 80 or udp"], &["-f", "ip6 or tcp[tcpflags] & tcp-syn != 0"], &["-f", "outbound"]],
    &[&["--summary"], &["--summary=json"]],
    &[&["-c", "5"], &["--duration", "1"]],
    &[
        &["-o", "x.pcapng"],
        &["-o", "x.pcapng", "-C", "1", "-W", "2"],
        &["-o", "%s.pcap", "-G", "1"],
        &["-o", "x.pcap", "--process", "curl"],
    ],
    // These are for programs only.
    &[&["--host-loopback"], &["--loopback"], &["-d", "eth1"]],
    &[&["-u", "nobody"], &["--tls-keys", "--format", "pcapng"]],
];

/// Of them those that are for cgroups too.
const FOR_ALL: usize = 7;

/// What never ends by itself: alone, with a child, and as a daemon.
const ENDLESS: [&str; 3] =
    ["exec sleep 1000", "sleep 1000 & exec sleep 1000", "setsid sleep 1000 & sleep 0.1"];

const SIGNALS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
const VICTIMS: [Victim; 4] = [Victim::Tracer, Victim::Guardian, Victim::Both, Victim::OneAfterTheOther];

/// The longest time before an end, in milliseconds: some of them come while a trace is set up, or ends.
const LATEST: u64 = 400;

impl Choice {
    /// One of all. `programs` end by themselves, with success; `cgroup` is one that may be traced; and
    /// no two choices have the same `port`.
    pub fn new(random: &mut Rng, programs: &[Vec<String>], cgroup: &str, port: u32) -> Self {
        let is_of_cgroup = random.u32(..8) == 0;
        let lines = if is_of_cgroup { &OPTIONS[..FOR_ALL] } else { &OPTIONS };
        let mut words = Vec::new();
        for line in lines.iter().filter(|_| random.u32(..3) == 0).collect::<Vec<_>>() {
            words.extend(random.choice(line.iter()).into_iter().flat_map(|option| strings(option)));
        }
        if is_of_cgroup {
            words.extend(strings(&["--cgroup", cgroup]));
            return Self { words, end: by_force(random) };
        }
        if random.u32(..8) == 0 {
            words.extend(strings(&["-p", &port.to_string()]));
        }
        let finite = random.choice(programs.iter().cloned());
        match finite.filter(|_| random.u32(..3) > 0) {
            Some(program) => words.extend(program),
            None => {
                let script = random.choice(ENDLESS).unwrap_or(ENDLESS[0]);
                words.extend(strings(&["sh", "-c", script]));
                return Self { words, end: by_force(random) };
            }
        }
        let end = if random.bool() { End::Itself } else { by_force(random) };
        Self { words, end }
    }
}

fn by_force(random: &mut Rng) -> End {
    let time = Duration::from_millis(random.u64(..LATEST));
    let signal = random.choice(SIGNALS).unwrap_or(Signal::SIGTERM);
    let victim = random.choice(VICTIMS).unwrap_or(Victim::Tracer);
    if random.bool() { End::Signal(signal, time) } else { End::Kill(victim, time) }
}

/// The words as they are kept.
pub fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
