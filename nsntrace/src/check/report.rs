//! `--check`: what this host has and lacks for a trace. It looks at everything where a trace stops at the first that is
//! missing, and changes nothing.

use std::{
    fmt::Display,
    io::{self, Write},
};

use aya::util::KernelVersion;
use nix::unistd::geteuid;
use nsntrace_ebpf::linktype;

use super::{account, capabilities, cgroup, device, filter, find, kernel, key_log, root, settings};
use crate::{
    capture::{Hook, Loaded, Settings},
    cgroup::Own,
    config::{Config, Outfile, Running},
    error::{Context, Error, Result},
    filter::{Compiled, check as libpcap},
    host::{
        base_chains::BaseChain,
        device::Device,
        foreign::{self, Listings, Spot},
        forwarding, forwarding6, legacy,
        nat::Family,
        packet_filter,
        reserve::reserve,
        resolver,
        route::survey::Survey,
        run_dir::{RUN_DIR, RunDir},
        ways::Ways,
    },
    ipv6,
    output::{invoker::Invoker, series::Series},
    publish,
    signals::keep_children,
    tracee,
    words::plain,
};

/// Prints a line for each thing that a trace of this configuration needs or would use. Returns the exit status: 0 where a
/// trace would work.
///
/// # Errors
/// Where stdout cannot be written to.
pub fn print(config: &Config) -> Result<u8> {
    keep_children()?;
    let mut report = Report::default();
    let written = match &config.running {
        Some(what) => running(&mut report, config, what),
        None => program(&mut report, config),
    };
    written.context("write to", "stdout")?;
    Ok(u8::from(report.is_missing))
}

/// For a program that is to be started.
fn program(report: &mut Report, config: &Config) -> io::Result<()> {
    any(report, config)?;
    host(report)?;
    let has_ipv6 = network(report, config)?;
    let filter = capture(report, config, Hook::Interface)?;
    command_line(report, config, has_ipv6, filter)
}

/// For what runs already: nothing in the host is changed for it.
fn running(report: &mut Report, config: &Config, what: &Running) -> io::Result<()> {
    any(report, config)?;
    report.needs("traced cgroup", find(what).map(|(path, _)| path.display().to_string()))?;
    let filter = capture(report, config, Hook::Cgroup)?;
    of_filter(report, filter)
}

#[derive(Default)]
struct Report {
    is_missing: bool,
}

impl Report {
    /// What no trace works without.
    fn needs(&mut self, what: &str, found: Result<impl Display>) -> io::Result<()> {
        self.is_missing |= found.is_err();
        line(what, found, "missing")
    }
}

/// What a trace can do without.
fn uses(what: &str, found: Result<impl Display>) -> io::Result<()> {
    line(what, found, "none")
}

fn line(what: &str, found: Result<impl Display>, otherwise: &str) -> io::Result<()> {
    let (state, text) = match found {
        Ok(text) => ("found", text.to_string()),
        Err(error) if !geteuid().is_root() && matches!(error.errno(), Some(libc::EPERM | libc::EACCES)) => {
            ("unknown", "needs root to tell".to_owned())
        }
        Err(error) => (otherwise, error.to_string()),
    };
    writeln!(io::stdout(), "{what:<16} {state:<8} {}", plain(&text))
}

/// What is there whatever is to be traced.
fn any(report: &mut Report, config: &Config) -> io::Result<()> {
    let version = KernelVersion::current().ok();
    let release = nix::sys::utsname::uname();
    let release = release.map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default();
    report.needs("kernel", kernel(version).map(|()| format!("Linux {release}")))?;
    report.needs(
        "root",
        root()
            .and_then(|()| capabilities(config.user.is_some()))
            .map(|()| "with the capabilities for a trace"),
    )
}

/// What a namespace in this host needs.
fn host(report: &mut Report) -> io::Result<()> {
    report.needs("cgroup", cgroup().map(|own| place(&own)))?;
    report.needs("settings", settings().map(|()| "/proc/sys can be written to"))?;
    report.needs("records", RunDir::count_dead().map(records))?;
    report.needs("iptables", packet_filter::describe(Family::V4))?;
    uses("ip6tables", packet_filter::describe(Family::V6))?;
    uses("libpcap", libpcap().map(|()| "for -f"))
}

fn place(own: &Own) -> String {
    match own.hidden {
        Some(_) => "no cgroup2 is mounted: one is made in a mount that only the trace has".to_owned(),
        None => format!("one can be made in {}", own.path.display()),
    }
}

fn records(dead: usize) -> String {
    match dead {
        0 => format!("{RUN_DIR}, and nothing that a dead run has left"),
        1 => format!("{RUN_DIR}, with what 1 dead run has left: the next trace takes it away"),
        dead => format!("{RUN_DIR}, with what {dead} dead runs have left: the next trace takes it away"),
    }
}

/// The ways of the packets. Returns whether there would be IPv6.
fn network(report: &mut Report, config: &Config) -> io::Result<bool> {
    let survey = match Survey::take() {
        Ok(survey) => survey,
        Err(error) => {
            report.needs("routing", Err::<&str, _>(error))?;
            Survey::default()
        }
    };
    let (uplinks4, uplinks6) = (&survey.uplinks, &survey.uplinks6);
    uses("uplinks IPv4", names(uplinks4, "IPv4"))?;
    uses("uplinks IPv6", names(uplinks6, "IPv6"))?;
    let only = device(config).ok().flatten();
    let ways = Ways::of(only.as_ref(), &survey);
    uses("forwarding IPv4", forwarding4(ways.inlets))?;
    let forwarding6 = forwarding6(&ways);
    let has_ipv6 = forwarding6.is_ok() && packet_filter::find(Family::V6).is_ok();
    uses("forwarding IPv6", forwarding6)?;
    uses("name servers", Ok(name_servers(config, has_ipv6)))?;
    firewalls()?;
    Ok(has_ipv6)
}

fn names(devices: &[Device], family: &str) -> Result<String> {
    let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    if names.is_empty() {
        return Err(Error::told(format!(
            "no default route in {family}: only the host's own networks are reached"
        )));
    }
    Ok(names.join(", "))
}

fn forwarding4(inlets: &[Device]) -> Result<String> {
    let state = |device: &Device| {
        let is_on = forwarding::is_on(&device.name)?;
        let state = if is_on { "on already" } else { "off, and on for a trace" };
        Ok(format!("{}: {state}", device.name))
    };
    let states = inlets.iter().map(state).collect::<Result<Vec<_>>>()?;
    if states.is_empty() { Ok("nothing is to be forwarded".to_owned()) } else { Ok(states.join(", ")) }
}

fn forwarding6(ways: &Ways<'_>) -> Result<String> {
    ipv6::check(ways.mtu)?;
    if forwarding6::is_router()? {
        return Ok("on already: the host is a router".to_owned());
    }
    if ways.inlets6()?.is_empty() {
        return Ok("nothing is to be forwarded".to_owned());
    }
    forwarding6::way().map(|way| format!("off, and on for a trace by {way}"))
}

fn name_servers(config: &Config, has_ipv6: bool) -> String {
    let configuration = resolver::configuration();
    let (servers, way) = if config.use_public_dns {
        (resolver::PUBLIC.to_vec(), "asked by the program itself")
    } else {
        let servers = configuration.servers.iter().map(|server| server.address).collect();
        let is_relayed = resolver::needs_relay(&configuration, |address| address.is_ipv4() || has_ipv6);
        (servers, if is_relayed { "asked by a relay in the host" } else { "asked by the program itself" })
    };
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    format!("{}, {way}", servers.join(", "))
}

/// Chains of others that drop packets.
fn firewalls() -> io::Result<()> {
    const WHAT: &str = "other firewalls";
    let chains = match foreign::chains() {
        Ok(chains) => chains,
        Err(error) => return line(WHAT, Err::<&str, _>(error), "unsure"),
    };
    let mut is_free = true;
    let mut listings = Listings::default();
    for chain in chains {
        let found = match foreign::drops(&chain, &mut listings).transpose() {
            None => continue,
            Some(found) => found,
        };
        is_free = false;
        let found = found
            .map(|spot| told(&chain, spot))
            .map_err(|error| held_back(&chain, &foreign::advice(&chain.place, error)));
        line(WHAT, found, "unsure")?;
    }
    is_free &= legacy(WHAT)?;
    if is_free { uses(WHAT, Ok("no chain that drops packets")) } else { Ok(()) }
}

/// Whether the other iptables lets everything pass.
fn legacy(what: &str) -> io::Result<bool> {
    let mut is_free = true;
    for family in [Family::V4, Family::V6] {
        let Some(reason) = legacy::obstacle(family) else { continue };
        is_free = false;
        let held_back =
            format!("iptables-legacy's chain FORWARD for {family} may hold packets back: {reason}");
        line(what, Err::<&str, _>(Error::told(held_back)), "unsure")?;
    }
    Ok(is_free)
}

fn told(chain: &BaseChain, spot: Spot) -> String {
    let place = if spot == Spot::Top { "on top of it" } else { "before it does" };
    format!("{} drops packets: those of a trace are let pass {place}", chain.place)
}

fn held_back(chain: &BaseChain, reason: &Error) -> Error {
    Error::told(format!("{} may hold packets back: {reason}", chain.place))
}

/// The capture and its file. Returns the filter, a mistake in which has a line of its own.
fn capture(report: &mut Report, config: &Config, hook: Hook) -> io::Result<Result<Option<Compiled>>> {
    let linktype = if hook == Hook::Cgroup { linktype::RAW } else { linktype::EN10MB };
    let filter = filter(config, linktype);
    let settings = Settings::of(config, hook, filter.as_ref().ok().and_then(Option::as_ref));
    report.needs("BPF", Loaded::load(&settings).map(|_| "the kernel takes the capture"))?;
    let file = Series::check(&config.outfile, config.rotation, Invoker::from_env());
    // Under sudo it would be the same user's file: there is nothing that root could tell.
    let file = file.map_err(|error| Error::told(error.to_string()));
    report.needs(
        "-o",
        file.map(|file| match file {
            Outfile::Stdout => "stdout".to_owned(),
            Outfile::Path(path) => format!("{} can be written to", path.display()),
        }),
    )?;
    Ok(filter)
}

fn of_filter(report: &mut Report, filter: Result<Option<Compiled>>) -> io::Result<()> {
    let Some(found) = filter.transpose() else { return Ok(()) };
    report.needs("-f", found.map(|filter| format!("{} instructions", filter.program.len())))
}

/// What else the command line names.
fn command_line(
    report: &mut Report,
    config: &Config,
    has_ipv6: bool,
    filter: Result<Option<Compiled>>,
) -> io::Result<()> {
    if let Some(found) = device(config).transpose() {
        report.needs("-d", found.map(|device| format!("{}, with an MTU of {}", device.name, device.mtu)))?;
    }
    let account = account(config);
    let user = account.as_ref().ok().cloned().flatten();
    if let Some(found) = account.transpose() {
        report.needs("-u", found.map(|account| format!("user {}, group {}", account.uid, account.gid)))?;
    }
    of_filter(report, filter)?;
    if !config.published.is_empty() {
        let found = reserve(&config.published);
        let found = found.and_then(|_| publish::can_be_reached(&config.published, has_ipv6));
        report.needs("-p", found.map(|()| "free"))?;
    }
    if config.tls_keys {
        let found = key_log::check(user.as_ref());
        report.needs("--tls-keys", found.map(|()| "the program can have a key log of its own"))?;
    }
    if !config.program.is_empty() {
        let found = tracee::find(&config.program, user.as_ref());
        report.needs("program", found.map(|path| path.display().to_string()))?;
    }
    Ok(())
}
