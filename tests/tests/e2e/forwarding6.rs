//! What a host that does not forward IPv6 has to do for a trace, by either of the two ways, and that it is undone.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{HOST_DEVICE, INTERNET_DEVICE, Lab, Running, SOON, Snapshot, Web, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    on_for_the_trace,
    router_stays_as_it_is,
    announced_route_survives,
    two_routers_on_the_link,
    own_switches_of_devices_come_back,
    tracer_is_killed,
    five_at_once,
];

/// The switch of a device, which older kernels do not have.
const FORCED: &str = "/proc/sys/net/ipv6/conf/eth1/force_forwarding";

/// The two ways to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What comes in at one device.
    Device,
    /// All.
    WholeHost,
}

/// The ways of this kernel. Where it has a device's switch and that cannot be written, it is as on an older kernel.
pub fn each_way(test: impl Fn(&Lab, Way) -> Result<()>) -> Result<()> {
    let has_switch = Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists();
    if has_switch {
        test(&Lab::new()?, Way::Device).context("by the device's own switch")?;
    }
    let lab = Lab::new()?;
    if has_switch {
        lab.sh(&format!("mount --bind {FORCED} {FORCED} && mount -o remount,bind,ro {FORCED}"))?;
    }
    test(&lab, Way::WholeHost).context("by the whole host's switch")
}

fn is_on(during: &Snapshot, way: Way) -> bool {
    let on = |setting| during.has(&[&format!("sysctl ipv6/conf/{setting}:1")]);
    let only_ours =
        |matches| during.has(&["ip6tables filter -A FORWARD", matches, "nsntrace:guard", "-j DROP"]);
    match way {
        Way::Device => {
            on("eth1/force_forwarding") && !on("all/forwarding") && only_ours("-i eth1 ! -o nsgw+")
        }
        Way::WholeHost => on("all/forwarding") && only_ours("! -i nsgw+ ! -o nsgw+"),
    }
}

/// A run that downloads when it is told to.
fn waiting(lab: &Lab, web: &Web) -> Result<Running> {
    waiting_with(lab, &[], web)
}

fn waiting_with(lab: &Lab, options: &[&str], web: &Web) -> Result<Running> {
    let program = r#"echo ready; read line; exec curl -s -o page -m 20 "$1""#;
    let words = [options, &["sh", "-c", program, "sh", &web.url]].concat();
    let mut run = lab.nsntrace(words)?.told().spawn()?;
    run.says("ready")?;
    Ok(run)
}

fn goes_on(mut run: Running, web: &Web) -> Result<String> {
    run.stdin_pipe()?.write_all(b"\n")?;
    let done = run.wait()?.exited(0)?;
    ensure!(fs::read(done.dir.join("page"))? == web.body, "the download is not whole");
    Ok(done.stderr)
}

fn on_for_the_trace(_: &Lab) -> Result<()> {
    each_way(|lab, way| {
        lab.ipv6()?;
        let web = lab.web6()?;
        let before = lab.snapshot()?;
        let run = waiting(lab, &web)?;
        let during = lab.snapshot()?;
        ensure!(is_on(&during, way), "the host is changed in another way:\n{}", before.diff(&during));
        let told = goes_on(run, &web)?;
        ensure!(told.matches("IPv6 forwarding").count() == 1, "{told}");
        lab.assert_clean(&before)
    })
}

fn router_stays_as_it_is(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    lab.sh("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")?;
    let web = lab.web6()?;
    let before = lab.snapshot()?;
    let run = waiting(lab, &web)?;
    assert!(!lab.snapshot()?.has(&["eth1/force_forwarding:1"]));
    let told = goes_on(run, &web)?;
    assert!(!told.contains("IPv6"), "{told}");
    lab.assert_clean(&before)
}

/// A router says that it is one, as radvd does, for half an hour. Arguments: device, address.
const ANNOUNCE: &str = "
import socket, struct, sys
announcer = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
announcer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
index = socket.if_nametoindex(sys.argv[1])
announcer.bind((sys.argv[2], 0, 0, index))
announcer.sendto(struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0), ('ff02::1', 0, 0, index))
";

fn announced_by(lab: &Lab, router: &str) -> Result<()> {
    lab.internet(["python3", "-c", ANNOUNCE, INTERNET_DEVICE, router])?.output().map(drop)
}

/// Removing it is what Linux does when a host becomes a router.
fn announced_route_survives(_: &Lab) -> Result<()> {
    each_way(|lab, way| {
        lab.ipv6_on_the_link()?;
        internet_routes(lab)?;
        let web = lab.web6()?;
        let announced = || lab.sh("ip -6 route show default proto ra");
        let announce = || -> Result<String> {
            until("an announced route", SOON, || {
                announced_by(lab, "fe80::2")?;
                Ok(Some(announced()?).filter(|route| !route.is_empty()))
            })
        };
        let route = announce()?;
        ensure!(route.contains("via fe80::2"), "{route}");
        let before = settings(lab)?;
        for way_out in [&[][..], &["-d", HOST_DEVICE]] {
            let run = waiting_with(lab, way_out, &web)?;
            ensure!(is_on(&lab.snapshot()?, way), "the host is changed in another way");
            ensure!(!announced()?.is_empty(), "the announced route is lost during the trace");
            // It is taken anew, as if it had never been.
            lab.sh("ip -6 route del default proto ra")?;
            announce().context("during the trace")?;
            goes_on(run, &web)?;
            ensure!(!announced()?.is_empty(), "the announced route is lost after the trace");
            ensure!(settings(lab)? == before, "the settings are not as they were");
        }
        Ok(())
    })
}

/// Else its neighbours find out that it is no router.
fn internet_routes(lab: &Lab) -> Result<()> {
    lab.internet(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"])?.output().map(drop)
}

/// To the host their routes are two, of the same metric.
fn two_routers_on_the_link(lab: &Lab) -> Result<()> {
    lab.ipv6_on_the_link()?;
    internet_routes(lab)?;
    lab.internet(["ip", "address", "add", "fe80::9/64", "dev", INTERNET_DEVICE, "nodad"])?.output()?;
    let web = lab.web6()?;
    until("two announced routes", SOON, || {
        for router in ["fe80::2", "fe80::9"] {
            announced_by(lab, router)?;
        }
        Ok((lab.sh("ip -6 route show default proto ra")?.lines().count() == 2).then_some(()))
    })?;
    let told = goes_on(waiting_with(lab, &["-d", HOST_DEVICE], &web)?, &web)?;
    ensure!(!told.contains("no IPv6") && !told.contains("was changed"), "{told}");
    Ok(())
}

/// Without routes, which tell for how long they are good.
fn settings(lab: &Lab) -> Result<String> {
    lab.sh("cd /proc/sys/net/ipv6/conf; grep . */forwarding */accept_ra || :; ip6tables-save | grep ^-A || :")
}

/// What the host's switch turns off again is turned on where it was on.
fn own_switches_of_devices_come_back(_: &Lab) -> Result<()> {
    each_way(|lab, _| {
        lab.ipv6()?;
        lab.second_cable()?;
        lab.sh("cd /proc/sys/net/ipv6/conf; echo 1 > eth2/forwarding; echo 0 > eth2/accept_ra")?;
        let web = lab.web6()?;
        let before = lab.snapshot()?;
        goes_on(waiting(lab, &web)?, &web)?;
        lab.assert_clean(&before)
    })
}

fn tracer_is_killed(_: &Lab) -> Result<()> {
    each_way(|lab, way| {
        lab.ipv6()?;
        let web = lab.web6()?;
        let before = lab.snapshot()?;
        let run = waiting(lab, &web)?;
        ensure!(is_on(&lab.snapshot()?, way), "nothing is there to be undone");
        run.signal(Signal::SIGKILL)?;
        run.wait()?;
        lab.assert_clean(&before)
    })
}

/// The host forwards until the last one ends, and says it once.
fn five_at_once(_: &Lab) -> Result<()> {
    each_way(|lab, way| {
        lab.ipv6()?;
        let web = lab.web6()?;
        let before = lab.snapshot()?;
        let runs = (0..5).map(|_| waiting(lab, &web)).collect::<Result<Vec<_>>>()?;
        let mut told = String::new();
        for run in runs {
            ensure!(is_on(&lab.snapshot()?, way), "it was switched off too early");
            told += &goes_on(run, &web)?;
        }
        ensure!(told.matches("IPv6 forwarding").count() == 1, "{told}");
        lab.assert_clean(&before)
    })
}
