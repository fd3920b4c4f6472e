//! End to end: the binary on a fake host, against servers in a fake internet, judged from outside.
//!
//! `cargo test -p nsntrace-tests -- trace::` runs one group, `-- --exact trace::download_is_whole` one test.

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nsntrace_tests::{Lab, why_no_lab};

mod bridge;
mod capabilities;
mod cgroup;
mod check;
mod containers;
mod dns;
mod extcap;
mod faults;
mod filter;
mod firewall;
mod firewalld;
mod flood;
mod forwarding6;
mod host_services;
mod iptables;
mod ipv6;
mod limits;
mod live;
mod names;
mod network;
mod no_iptables;
mod output;
mod ownership;
mod package;
mod parallel;
mod pcapng;
mod publish;
mod resolv_conf;
mod rotation;
mod run_folder;
mod runner;
mod setup_failure;
mod signals;
mod summary;
mod terminal;
mod tls_keys;
mod trace;
mod tracee;
mod undo;
mod upkeep;
mod uplinks;
mod words;

/// The name of a test, and what it does in a lab of its own.
type Case = (&'static str, fn(&Lab) -> Result<()>);

/// The tests of a module, by the names of their functions.
macro_rules! cases {
    ($($test:ident),+ $(,)?) => {
        &[$((stringify!($test), $test)),+]
    };
}
use cases;

const GROUPS: &[(&str, &[Case])] = &[
    ("trace", trace::CASES),
    ("live", live::CASES),
    ("limits", limits::CASES),
    ("output", output::CASES),
    ("pcapng", pcapng::CASES),
    ("rotation", rotation::CASES),
    ("network", network::CASES),
    ("uplinks", uplinks::CASES),
    ("dns", dns::CASES),
    ("resolv_conf", resolv_conf::CASES),
    ("ipv6", ipv6::CASES),
    ("forwarding6", forwarding6::CASES),
    ("host_services", host_services::CASES),
    ("publish", publish::CASES),
    ("bridge", bridge::CASES),
    ("tracee", tracee::CASES),
    ("runner", runner::CASES),
    ("signals", signals::CASES),
    ("terminal", terminal::CASES),
    ("undo", undo::CASES),
    ("faults", faults::CASES),
    ("run_folder", run_folder::CASES),
    ("setup_failure", setup_failure::CASES),
    ("iptables", iptables::CASES),
    ("parallel", parallel::CASES),
    ("words", words::CASES),
    ("filter", filter::CASES),
    ("cgroup", cgroup::CASES),
    ("capabilities", capabilities::CASES),
    ("check", check::CASES),
    ("containers", containers::CASES),
    ("firewall", firewall::CASES),
    ("firewalld", firewalld::CASES),
    ("no_iptables", no_iptables::CASES),
    ("upkeep", upkeep::CASES),
    ("flood", flood::CASES),
    ("tls_keys", tls_keys::CASES),
    ("ownership", ownership::PARTS[0]),
    ("ownership", ownership::PARTS[1]),
    ("ownership", ownership::PARTS[2]),
    ("ownership", ownership::PARTS[3]),
    ("summary", summary::CASES),
    ("names", names::CASES),
    ("extcap", extcap::CASES),
    ("package", package::CASES),
];

fn main() {
    let arguments = Arguments::from_args();
    let no_lab = if arguments.list { None } else { why_no_lab() };
    let no_bridge = if arguments.list { None } else { bridge::why_not() };
    let mut trials = Vec::new();
    for (group, cases) in GROUPS {
        let no_bridge = no_bridge.as_ref().filter(|_| *group == "bridge");
        let why_not = no_lab.as_ref().or(no_bridge);
        trials.extend(
            cases.iter().map(|(name, test)| trial(format!("{group}::{name}"), *test, why_not.cloned())),
        );
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let (1.., Some(reason)) = (conclusion.num_ignored, no_lab.or(no_bridge)) {
        println!("{} tests SKIPPED, nothing was tried: {reason}\n", conclusion.num_ignored);
    }
    conclusion.exit();
}

fn trial(name: String, test: fn(&Lab) -> Result<()>, why_not: Option<String>) -> Trial {
    Trial::ignorable_test(name, move || match why_not {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => Lab::new()
            .and_then(|lab| test(&lab))
            .map(|()| Completion::Completed)
            .map_err(|error| Failed::from(format!("{error:#}"))),
    })
}
