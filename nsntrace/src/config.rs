//! From the command line to a checked configuration, as far as that needs no look at the host.

mod rotation;
mod running;

use std::{
    ffi::{OsStr, OsString},
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};

use nsntrace_ebpf::{MAX_SNAPLEN, ownership::MOST_NAMES};

use crate::{
    cli::Cli,
    error::{Error, Result},
    ownership::Name,
    page,
    publish::{self, Publish},
    talk::report::Form,
};

pub use rotation::Rotation;
pub use running::Running;

/// What the user asked for.
#[derive(Debug)]
pub struct Config {
    /// Where the trace goes.
    pub outfile: Outfile,
    /// When it goes on in another file.
    pub rotation: Rotation,
    /// What is written there.
    pub format: Format,
    /// The host's device to use; without one its routing decides.
    pub device: Option<String>,
    /// The filter expression.
    pub filter: Option<String>,
    /// The names of processes whose packets alone are wanted; without any, all are.
    pub processes: Vec<Name>,
    /// Name or id of the user to run the program as.
    pub user: Option<String>,
    /// Whether the program uses public name servers in place of the host's.
    pub use_public_dns: bool,
    /// Bytes to keep of a packet.
    pub snaplen: u32,
    /// Packets after which the capture ends.
    pub count: Option<NonZeroU64>,
    /// Time after which the capture ends.
    pub duration: Option<Duration>,
    /// Size of the ring buffer in bytes, a power of two.
    pub ring_bytes: u32,
    /// Ports of the program that are reached at the host's.
    pub published: Vec<Publish>,
    /// Whether the program reaches services on the host's loopback.
    pub host_loopback: bool,
    /// Whether the program logs its TLS keys for the trace.
    pub tls_keys: bool,
    /// Whether the program's own loopback is traced too.
    pub loopback: bool,
    /// How it is to be told who talked to whom, if it is.
    pub summary: Option<Form>,
    /// Whether the host is to be looked at, and nothing to be traced.
    pub check: bool,
    /// How much to say.
    pub words: Words,
    /// Whether this is a capture of Wireshark's: the program has neither input nor output, its status is nobody's concern, and
    /// the trace ends when nobody reads it or stdin is closed.
    pub as_extcap: bool,
    /// What already runs and is traced in place of a program.
    pub running: Option<Running>,
    /// The program as it was named; empty where none is to be started.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Where a trace goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outfile {
    /// `-`
    Stdout,
    /// A file.
    Path(PathBuf),
}

impl Outfile {
    fn new(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdout } else { Self::Path(path.to_owned()) }
    }
}

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The plain list of packets that every tool reads, with nanoseconds.
    Pcap,
    /// Packets with their directions, interfaces and losses.
    Pcapng,
}

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Words {
    /// Errors and losses.
    Quiet,
    /// What the trace is, and its count.
    Normal,
    /// Messages of the kernel side too, and a running count.
    Verbose,
}

/// Largest ring buffer in KiB: the kernel takes its size as 32 bits.
pub const MAX_BUFFER_KIB: u32 = 2 << 20;

impl Config {
    /// Checks the command line.
    ///
    /// # Errors
    /// Says which option is wrong and what it may be.
    pub fn new(cli: Cli) -> Result<Self> {
        let rotation = Rotation::new(&cli)?;
        let running = Running::wanted(&cli)?;
        let mut command = cli.command.into_iter();
        let named = command.next();
        let may_lack = cli.check || running.is_some();
        if named.as_ref().map_or(!may_lack, |program| program.is_empty()) {
            return Err(Error::told("the name of the program to trace is empty"));
        }
        if cli.device.as_deref() == Some("lo") {
            return Err(Error::told(
                "-d lo: the program has a loopback of its own, and the host's leads nowhere else; name the device \
                 that leads to the network",
            ));
        }
        let format = format(cli.format.as_deref(), &cli.outfile);
        if cli.tls_keys && format == Format::Pcap {
            return Err(Error::told(
                "--tls-keys: a pcap has no place for keys: name the file like x.pcapng, or add --format pcapng",
            ));
        }
        Ok(Self {
            outfile: Outfile::new(&cli.outfile),
            rotation,
            format,
            device: cli.device,
            filter: cli.filter.filter(|expression| !expression.trim().is_empty()),
            processes: processes(&cli.process)?,
            user: cli.user,
            use_public_dns: cli.use_public_dns,
            snaplen: snaplen(cli.snaplen)?,
            count: cli.count.map(count).transpose()?,
            duration: cli.duration.map(duration).transpose()?,
            ring_bytes: ring_bytes(cli.buffer_size)?,
            published: publish::parse(&cli.publish)?,
            host_loopback: cli.host_loopback,
            tls_keys: cli.tls_keys,
            loopback: cli.loopback,
            summary: cli.summary.map(|form| if form == "json" { Form::Json } else { Form::Table }),
            check: cli.check,
            words: match (cli.quiet, cli.verbose) {
                (true, _) => Words::Quiet,
                (false, 0) => Words::Normal,
                (false, _) => Words::Verbose,
            },
            as_extcap: cli.as_extcap,
            running,
            program: named.unwrap_or_default(),
            arguments: command.collect(),
        })
    }
}

fn processes(names: &[String]) -> Result<Vec<Name>> {
    if names.len() > MOST_NAMES {
        return Err(Error::told(format!(
            "--process: {MOST_NAMES} names at most, and there are {}",
            names.len()
        )));
    }
    names.iter().map(|name| Name::new(name)).collect()
}

fn format(wanted: Option<&str>, outfile: &Path) -> Format {
    let ending = outfile.extension().and_then(OsStr::to_str);
    match wanted.or(ending) {
        Some(name) if name.eq_ignore_ascii_case("pcapng") => Format::Pcapng,
        _ => Format::Pcap,
    }
}

fn snaplen(bytes: u32) -> Result<u32> {
    match bytes {
        0 => Ok(MAX_SNAPLEN),
        1..=MAX_SNAPLEN => Ok(bytes),
        _ => Err(Error::told(format!("-s {bytes}: the most is {MAX_SNAPLEN} bytes"))),
    }
}

fn count(packets: u64) -> Result<NonZeroU64> {
    NonZeroU64::new(packets).ok_or_else(|| Error::told("-c 0: a capture has at least one packet"))
}

fn duration(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| Error::told(format!("--duration {seconds}: a number of seconds above 0 is wanted")))
}

/// The kernel wants a power of two that is a multiple of the page size: rounded up.
fn ring_bytes(kib: u32) -> Result<u32> {
    if !(1..=MAX_BUFFER_KIB).contains(&kib) {
        return Err(Error::told(format!("-B {kib}: from 1 to {MAX_BUFFER_KIB} KiB")));
    }
    Ok((kib * 1024).next_power_of_two().max(page::size()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// The configuration that this command line comes to.
    pub(super) fn config(arguments: &[&str]) -> Result<Config> {
        let words = ["nsntrace"].iter().chain(arguments);
        Config::new(Cli::try_parse_from(words).expect("clap takes it"))
    }

    #[test]
    fn options_end_at_the_program() {
        let config = config(&["-o", "x.pcap", "curl", "-o", "page", "--", "http://host/"]).expect("valid");
        assert_eq!(config.outfile, Outfile::Path("x.pcap".into()));
        assert_eq!(config.program, "curl");
        assert_eq!(config.arguments, ["-o", "page", "--", "http://host/"]);
    }

    #[test]
    fn an_unknown_option_is_not_a_program() {
        assert!(Cli::try_parse_from(["nsntrace", "--bogus", "curl"]).is_err());
        assert!(Cli::try_parse_from(["nsntrace", "-Z", "curl"]).is_err());
    }

    #[test]
    fn tcpdumps_name_for_the_file_is_taken() {
        assert_eq!(config(&["-w", "-", "true"]).expect("valid").outfile, Outfile::Stdout);
    }

    #[test]
    fn the_format_is_by_name_unless_it_is_said() {
        let format = |arguments: &[&str]| config(arguments).expect("valid").format;
        assert_eq!(format(&["true"]), Format::Pcap);
        assert_eq!(format(&["-w", "x.PcapNG", "true"]), Format::Pcapng);
        assert_eq!(format(&["-o", "pcapng", "true"]), Format::Pcap);
        assert_eq!(format(&["-o", "-", "--format", "pcapng", "true"]), Format::Pcapng);
        assert_eq!(format(&["-o", "x.pcapng", "--format", "pcap", "true"]), Format::Pcap);
        assert!(Cli::try_parse_from(["nsntrace", "--format", "json", "true"]).is_err());
    }

    #[test]
    fn keys_need_a_place() {
        assert!(config(&["--tls-keys", "-o", "x.pcapng", "true"]).expect("valid").tls_keys);
        assert!(config(&["--tls-keys", "-o", "-", "--format", "pcapng", "true"]).is_ok());
        for words in
            [&["--tls-keys", "true"][..], &["--tls-keys", "-o", "x.pcapng", "--format", "pcap", "true"]]
        {
            let error = config(words).expect_err("a pcap");
            assert!(error.to_string().contains("pcapng"), "{error}");
        }
    }

    #[test]
    fn the_ring_is_a_power_of_two() {
        assert_eq!(config(&["true"]).expect("valid").ring_bytes, 32 << 20);
        assert_eq!(config(&["-B", "1", "true"]).expect("valid").ring_bytes, page::size());
        assert_eq!(config(&["-B", "1000", "true"]).expect("valid").ring_bytes, 1 << 20);
        assert_eq!(config(&["-B", "2097152", "true"]).expect("valid").ring_bytes, 1 << 31);
        assert!(config(&["-B", "2097153", "true"]).is_err());
        assert!(config(&["-B", "0", "true"]).is_err());
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert!(config(&["-s", "262145", "true"]).is_err());
        assert_eq!(config(&["-s", "0", "true"]).expect("valid").snaplen, MAX_SNAPLEN);
        assert!(config(&["-c", "0", "true"]).is_err());
        for seconds in ["0", "inf", "NaN", "1e300"] {
            assert!(config(&["--duration", seconds, "true"]).is_err(), "{seconds}");
        }
        assert!(config(&["-d", "lo", "true"]).is_err());
        assert!(config(&[""]).is_err());
    }
}
