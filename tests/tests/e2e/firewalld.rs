//! firewalld on the host: packets of a trace pass, and its rules stay as they are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{Lab, Running, SOON, until};

use crate::firewall::{Before, IPTABLES, downloads_in_both_families, programs};
use crate::{Case, cases, dns, publish, upkeep};

pub const CASES: &[Case] = cases![
    download_in_both_families,
    name_look_ups_are_relayed,
    published_ports,
    reload_during_a_trace,
    what_it_holds_back_its_own_tool_lets_pass,
];

/// A system bus for everybody, in the lab.
const BUS: &str = r#"<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<auth>EXTERNAL</auth><policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
<allow send_destination="*"/><allow receive_type="method_return"/><allow receive_type="error"/>
<allow receive_type="signal"/><allow receive_type="method_call"/></policy></busconfig>"#;

/// Where `cargo xtask setup` unpacks it where it can be had.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/firewalld/usr")
}

/// The words of a program of firewalld's, which is Debian's Python's.
fn python(program: &str, arguments: &[&str]) -> Vec<String> {
    let program = tools().join(program).display().to_string();
    let words = ["/usr/bin/python3", "-Es", &program];
    words.iter().chain(arguments).map(|word| (*word).to_owned()).collect()
}

fn firewall_cmd(lab: &Lab, arguments: &[&str]) -> Result<String> {
    lab.host(python("bin/firewall-cmd", arguments))?.output()
}

/// Runs a test while firewalld guards the host, with what it comes with.
fn guarded(lab: &Lab, test: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    if !tools().join("sbin/firewalld").exists() {
        println!("firewalld SKIPPED, nothing was tried: it is not there");
        return Ok(());
    }
    let _running = start(lab)?;
    test(lab)
}

fn start(lab: &Lab) -> Result<[Running; 2]> {
    let bus = lab.dir().join("bus.conf");
    fs::write(&bus, BUS)?;
    let bus = format!("--config-file={}", bus.display());
    lab.host(["mkdir", "/run/dbus"])?.output()?;
    let bus = lab.host(["dbus-daemon", &bus, "--nofork", "--nopidfile"])?.spawn()?;
    until("a system bus", SOON, || {
        Ok(lab.host(["test", "-S", "/run/dbus/system_bus_socket"])?.run()?.status.success().then_some(()))
    })?;
    let (default, own) = (tools().join("lib/firewalld"), lab.dir().join("firewalld"));
    fs::create_dir(&own)?;
    let log = own.join("log");
    let options = [
        "--nofork",
        "--nopid",
        "--default-config",
        default.to_str().context("a path that is no text")?,
        "--system-config",
        own.to_str().context("a path that is no text")?,
        "--log-file",
        log.to_str().context("a path that is no text")?,
    ];
    let daemon = lab.host(python("sbin/firewalld", &options))?.spawn()?;
    until("firewalld", SOON, || {
        let state = lab.host(python("bin/firewall-cmd", &["--state"]))?.run()?;
        Ok(state.status.success().then_some(()))
    })
    .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    Ok([bus, daemon])
}

fn download_in_both_families(lab: &Lab) -> Result<()> {
    guarded(lab, |lab| {
        lab.ipv6()?;
        let before = Before::new(lab)?;
        ensure!(before.rules.contains("table inet firewalld"), "it does not guard:\n{}", before.rules);
        downloads_in_both_families(lab)?;
        before.assert_clean()
    })
}

fn name_look_ups_are_relayed(lab: &Lab) -> Result<()> {
    guarded(lab, dns::server_on_loopback)
}

fn published_ports(lab: &Lab) -> Result<()> {
    guarded(lab, publish::web_server)
}

fn reload_during_a_trace(lab: &Lab) -> Result<()> {
    guarded(lab, |lab| {
        lab.ipv6()?;
        let (web, web6) = (lab.web()?, lab.web6()?);
        let before = Before::new(lab)?;
        let mut run = upkeep::waiting(lab, &web, &web6)?;
        firewall_cmd(lab, &["--reload"])?;
        run.complains("inserted again")?;
        upkeep::goes_on(run, &web, &web6)?;
        before.assert_clean()
    })
}

/// Where nobody else may put rules there. What is advised helps.
fn what_it_holds_back_its_own_tool_lets_pass(lab: &Lab) -> Result<()> {
    guarded(lab, |lab| {
        let web = lab.web()?;
        let run = |status| -> Result<String> {
            let job = lab.nsntrace(["curl", "-s", "-m", "20", "-o", "page", &web.url])?;
            let path = programs(job.dir(), &[&IPTABLES[..], &[("curl", "curl")]].concat())?;
            Ok(job.env("PATH", &path).run()?.exited(status)?.stderr)
        };
        let told = run(7)?;
        let advice = "firewall-cmd --zone=trusted --add-interface=nsgw+";
        ensure!(told.matches(advice).count() >= 1, "{told}");
        let words: Vec<_> = advice.split(' ').skip(1).collect();
        firewall_cmd(lab, &words)?;
        run(0).map(drop)
    })
}
