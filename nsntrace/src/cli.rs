//! The command line, and nothing else.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Parser, ValueHint, error::ErrorKind};

const USAGE: &str = "nsntrace [OPTIONS] PROGRAM [ARGUMENTS]...
       nsntrace [OPTIONS] --cgroup CGROUP
       nsntrace [OPTIONS] --pid PID";

/// Trace the network of one program: all of its packets and nobody else's
///
/// PROGRAM runs in a network namespace of its own, joined to the host by a veth pair and NAT, and its packets are
/// saved as pcap or pcapng. With --cgroup or --pid, those of what already runs are, where it is.
#[derive(Debug, Parser)]
#[command(name = "nsntrace", version, override_usage = USAGE)]
#[command(
    after_help = "The exit status is PROGRAM's own, 128+N if signal N ended it, and 1 if nsntrace failed. With --cgroup or \
                  --pid it is 0 at the end of the trace, with --check 0 where a trace would work."
)]
pub struct Cli {
    /// Trace file, also as -w; '-' is stdout
    #[arg(short, long, short_alias = 'w', value_name = "FILE", default_value = "nsntrace.pcap")]
    pub outfile: PathBuf,

    /// Go on in a new file after so many millions of bytes; names get numbers
    #[arg(short = 'C', value_name = "SIZE")]
    pub file_size: Option<u64>,

    /// Go on in a new file after so long; names are formats for strftime(3), and a name without a % is the next file's too
    #[arg(short = 'G', value_name = "SECONDS")]
    pub file_seconds: Option<u64>,

    /// With -C, overwrite the oldest of so many files; with -G, end the capture after so many; with both, number the files of
    /// each period
    #[arg(short = 'W', value_name = "FILES")]
    pub file_count: Option<u32>,

    /// What the trace file is [default: by its name's ending, else pcap]
    #[arg(long, value_name = "pcap|pcapng", value_parser = ["pcap", "pcapng"], hide_possible_values = true)]
    pub format: Option<String>,

    /// The network device to use [default: the host's routing decides]
    #[arg(short, long, value_name = "DEVICE")]
    pub device: Option<String>,

    /// Keep only what matches; the language of pcap-filter(7), run in the kernel
    #[arg(short, long, value_name = "EXPRESSION")]
    pub filter: Option<String>,

    /// Keep only packets of processes with this name; repeatable, and found out in the kernel
    #[arg(long, value_name = "NAME")]
    pub process: Vec<String>,

    /// Run PROGRAM as this user name or id
    #[arg(short, long, value_name = "USER", value_hint = ValueHint::Username)]
    pub user: Option<String>,

    /// Use public name servers (Quad9, Cloudflare, Google, OpenDNS) in the namespace
    #[arg(long)]
    pub use_public_dns: bool,

    /// Keep at most so much of a packet; 0 is the default
    #[arg(short, long, value_name = "BYTES", default_value_t = nsntrace_ebpf::MAX_SNAPLEN)]
    pub snaplen: u32,

    /// End the capture after N packets; PROGRAM runs on
    #[arg(short, long, value_name = "N")]
    pub count: Option<u64>,

    /// End the capture after so long; PROGRAM runs on
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<f64>,

    /// Size of the ring buffer
    #[arg(short = 'B', long, value_name = "KIB", default_value_t = 32768)]
    pub buffer_size: u32,

    /// Make a port of PROGRAM reachable at the host's; repeatable
    #[arg(short, long, value_name = "[HOST:]PORT[/udp]")]
    pub publish: Vec<String>,

    /// Let PROGRAM reach services on the host's 127.0.0.1 and ::1 at the gateway addresses
    #[arg(long)]
    pub host_loopback: bool,

    /// Give PROGRAM an SSLKEYLOGFILE and put the keys into the pcapng, which opens its TLS
    #[arg(long)]
    pub tls_keys: bool,

    /// Trace the namespace's lo too
    #[arg(long)]
    pub loopback: bool,

    /// Say at the end who talked to whom: as a table, or as JSON
    #[arg(long, value_name = "json", num_args = 0..=1, require_equals = true, default_missing_value = "table")]
    #[arg(value_parser = ["table", "json"], hide_possible_values = true)]
    pub summary: Option<String>,

    /// Trace what already runs in a cgroup, until ctrl-c: a path, one below the cgroup2 mount, or a systemd unit's name
    #[arg(long, value_name = "CGROUP", conflicts_with = "pid")]
    pub cgroup: Option<PathBuf>,

    /// Trace the cgroup of a running process, if only that and its descendants are in there
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// Say what this host has and lacks for a trace, and change nothing
    #[arg(long)]
    pub check: bool,

    /// Say nothing but errors, losses, and why it waits or ends
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more; on a terminal, keep a running count
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// For Wireshark: what the program prints goes nowhere, and the trace ends with its reader or when stdin is closed
    #[arg(long, hide = true)]
    pub as_extcap: bool,

    /// The program to trace, and its arguments
    #[arg(value_name = "PROGRAM", required_unless_present_any = ["cgroup", "pid", "check"], trailing_var_arg = true)]
    #[arg(value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// What is wrong with a command line, as one line.
pub fn mistake(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::MissingRequiredArgument {
        return "there is no program to trace; see 'nsntrace --help'".to_owned();
    }
    let text = error.to_string();
    let text = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let line: Vec<_> = text.split_whitespace().collect();
    format!("{}; see 'nsntrace --help'", line.join(" "))
}
