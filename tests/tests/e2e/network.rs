//! The program's network: its addresses, its way out through the host, and what the host's settings mean to it.

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{Done, HOST_DEVICE, Lab, Running, SERVER_ADDRESS, SOON, Web, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    forwarding_is_on_for_the_trace,
    forwarding_that_was_on_stays,
    host_that_becomes_a_router_forwards,
    host_that_becomes_a_router_stays_one,
    firewall_that_forwards_nothing,
    names_are_resolved,
    loopback_is_up,
    devices_in_sys,
    mtu_of_the_uplink,
    sysctls_are_carried_over,
    taken_addresses_are_avoided,
    no_default_route,
    named_device_is_used,
    named_device_with_a_route_on_the_link,
    named_device_of_several_next_hops,
    named_device_without_a_way_out,
    unused_table_is_no_uplink,
    black_holes_are_no_obstacle,
    unknown_device,
    loopback_device,
];

fn download(lab: &Lab, web: &Web) -> Result<()> {
    let done = lab.nsntrace(["curl", "-s", "-S", "-m", "20", &web.url])?.run()?.exited(0)?;
    assert!(done.stdout == web.body);
    Ok(())
}

/// A run that goes on until it is [`ended`].
fn waiting(lab: &Lab) -> Result<Running> {
    let mut run = lab.nsntrace(["sh", "-c", "echo ready; read line; exit 0"])?.told().spawn()?;
    run.says("ready").map(|_| run)
}

pub fn ended(mut run: Running) -> Result<Done> {
    drop(run.stdin_pipe()?);
    run.wait()?.exited(0)
}

fn forwarding_is_on_for_the_trace(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = waiting(lab)?;
    let during = lab.snapshot()?;
    assert!(during.has(&["sysctl ipv4/conf/eth1/forwarding:1"]));
    assert!(during.has(&["sysctl ipv4/ip_forward:0"]), "the global switch was touched");
    let done = ended(run)?;
    let told: Vec<_> = done.stderr.lines().filter(|line| line.contains("forwarding")).collect();
    assert_eq!(told.len(), 1, "{}", done.stderr);
    assert!(told[0].contains(HOST_DEVICE), "{}", told[0]);
    lab.assert_clean(&before)
}

fn forwarding_that_was_on_stays(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    for switch in ["conf/eth1/forwarding", "ip_forward"] {
        lab.sh(&format!("echo 1 > /proc/sys/net/ipv4/{switch}"))?;
        let before = lab.snapshot()?;
        let done = lab.nsntrace(["curl", "-s", "-m", "20", &web.url])?.run()?.exited(0)?;
        assert!(!done.stderr.contains("forwarding"), "{}", done.stderr);
        lab.assert_clean(&before)?;
    }
    Ok(())
}

/// Docker or libvirt starts during the trace: what the host forwards for them is not kept back.
fn host_that_becomes_a_router_forwards(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let count =
        |text: &str| -> Result<usize> { Ok(lab.host(["iptables-save"])?.output()?.matches(text).count()) };
    let guards = || count("nsntrace:guard");
    let (first, second) = (waiting(lab)?, waiting(lab)?);
    ensure!(guards()? == 1, "the host is not guarded");
    lab.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")?;
    until("no guard", SOON, || Ok((guards()? == 0).then_some(())))?;
    // What is flushed comes back, without the guard.
    lab.sh("iptables -F FORWARD")?;
    until("the rules of both", SOON, || Ok((count("-A FORWARD")? == 6).then_some(())))?;
    ensure!(guards()? == 0, "the host is guarded again");
    ended(first)?;
    ended(second)?;
    lab.sh("echo 0 > /proc/sys/net/ipv4/ip_forward")?;
    lab.assert_clean(&before)
}

/// It goes on after the trace.
fn host_that_becomes_a_router_stays_one(lab: &Lab) -> Result<()> {
    let script = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    let run = waiting(lab)?;
    lab.sh(script)?;
    ended(run)?;
    let after = lab.snapshot()?;
    assert!(after.has(&["sysctl ipv4/conf/eth1/forwarding:1"]), "the router forwards no more");
    assert!(!after.has(&["iptables", "nsntrace"]), "a rule is left");
    Ok(())
}

fn firewall_that_forwards_nothing(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    lab.sh("iptables -P FORWARD DROP; iptables -A FORWARD -j DROP")?;
    let before = lab.snapshot()?;
    download(lab, &web)?;
    lab.assert_clean(&before)
}

fn names_are_resolved(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let _server = lab.name_server()?;
    let url = "http://www.example.test/data.bin";
    let done = lab.nsntrace(["curl", "-s", "-m", "20", url])?.run()?.exited(0)?;
    assert!(done.stdout == web.body);
    assert!(done.trace().count_of("dns.a == 203.0.113.7")? > 0, "the answer is not in the trace");
    Ok(())
}

fn loopback_is_up(lab: &Lab) -> Result<()> {
    let done = lab.nsntrace(["busybox", "ping", "-c", "1", "127.0.0.1"])?.run()?.exited(0)?;
    assert_eq!(done.captured()?, 0, "the loopback is not traced");
    Ok(())
}

fn devices_in_sys(lab: &Lab) -> Result<()> {
    let script = "ls /sys/class/net; echo; ip -o link | cut -d' ' -f2 | tr -d : | cut -d@ -f1 | sort";
    let text = lab.nsntrace(["-q", "sh", "-c", script])?.output()?;
    let (shown, devices) = text.split_once("\n\n").context("not two lists")?;
    assert_eq!(shown, devices.trim_end(), "/sys/class/net shows other devices than the program has");
    let cgroups = nsntrace_tests::own_cgroup()?.display().to_string();
    lab.nsntrace(["-q", "ls", &format!("{cgroups}/cgroup.procs")])?.output()?;
    Ok(())
}

fn mtu_of_the_uplink(lab: &Lab) -> Result<()> {
    lab.sh("ip link set eth1 mtu 1400")?;
    let text = lab.nsntrace(["-q", "ip", "-o", "link", "show", "type", "veth"])?.output()?;
    assert!(text.contains("mtu 1400"), "{text}");
    Ok(())
}

fn sysctls_are_carried_over(lab: &Lab) -> Result<()> {
    let sysctls = [
        ("ping_group_range", "0\t4000"),
        ("ip_local_port_range", "20000\t21000"),
        ("ip_unprivileged_port_start", "80"),
        ("tcp_keepalive_time", "77"),
    ];
    for (name, value) in sysctls {
        lab.sh(&format!("echo '{value}' > /proc/sys/net/ipv4/{name}"))?;
        let text = lab.nsntrace(["-q", "cat", &format!("/proc/sys/net/ipv4/{name}")])?.output()?;
        assert_eq!(text.trim_end(), value, "{name}");
    }
    Ok(())
}

fn taken_addresses_are_avoided(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let first = "172.16.42.255";
    assert_eq!(lab.nsntrace(["true"])?.run()?.exited(0)?.address()?, first);
    for taken in [
        "ip route add 172.16.42.0/24 via 10.99.0.2",
        "ip route del 172.16.42.0/24; ip route add 172.16.42.254 via 10.99.0.2 table 100",
        "ip route flush table 100; ip address add 172.16.42.255/32 dev lo",
        "ip address flush dev lo; ip address add 127.0.0.1/8 dev lo; echo nameserver 172.16.42.254 > /etc/resolv.conf",
    ] {
        lab.sh(taken)?;
        let done = lab.nsntrace(["curl", "-s", "-m", "20", &web.url])?.run()?.exited(0)?;
        assert_ne!(done.address()?, first, "after: {taken}");
        assert!(done.stdout == web.body);
    }
    Ok(())
}

fn no_default_route(lab: &Lab) -> Result<()> {
    lab.sh("ip route del default")?;
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["true"])?.run()?.exited(0)?;
    done.line_with("on interface any.")?;
    lab.assert_clean(&before)
}

/// A second cable, which the host's routing does not choose.
fn named_device_is_used(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    lab.second_cable()?;
    for (device, address) in [("eth2", "10.98.0.1"), (HOST_DEVICE, "10.99.0.1")] {
        let before = lab.snapshot()?;
        let done = lab.nsntrace(["-d", device, "curl", "-s", "-m", "20", &web.url])?.run()?.exited(0)?;
        assert!(done.stdout == web.body);
        done.line_with(&format!("on interface {device}."))?;
        // Python's server writes down who asked.
        let log = web.log()?;
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with(address), "-d {device}: asked by {last}");
        lab.assert_clean(&before)?;
    }
    Ok(())
}

/// A download by `-d eth2`: what the second cable's far end has counted says that it went there.
fn download_by_eth2(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["-d", "eth2", "curl", "-s", "-S", "-m", "20", &web.url])?.run()?.exited(0)?;
    assert!(done.stdout == web.body);
    assert!(web.log()?.starts_with("10.98.0.1 "), "it went another way: {}", web.log()?);
    lab.assert_clean(&before)
}

fn named_device_with_a_route_on_the_link(lab: &Lab) -> Result<()> {
    lab.second_cable()?;
    lab.sh(
        "ip route del default dev eth2; ip address del 10.98.0.1/24 dev eth2; ip address add 10.98.0.1/32 dev eth2",
    )?;
    lab.sh("ip route add default via 10.98.0.2 dev eth2 onlink metric 1000")?;
    download_by_eth2(lab)
}

fn named_device_of_several_next_hops(lab: &Lab) -> Result<()> {
    lab.second_cable()?;
    lab.sh(
        "ip route flush default; ip route add default nexthop via 10.99.0.2 dev eth1 nexthop via 10.98.0.2 dev eth2",
    )?;
    download_by_eth2(lab)?;
    lab.sh(
        "ip route flush default; ip nexthop add id 7 via 10.98.0.2 dev eth2; ip route add default nhid 7",
    )?;
    download_by_eth2(lab)
}

fn named_device_without_a_way_out(lab: &Lab) -> Result<()> {
    lab.second_cable()?;
    lab.sh("ip route del default dev eth2")?;
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["-d", "eth2", "curl", "-s", "-m", "5", &web.url])?.run()?.exited(7)?;
    assert!(done.stderr.contains("no default route by eth2"), "{}", done.stderr);
    lab.assert_clean(&before)
}

fn unused_table_is_no_uplink(lab: &Lab) -> Result<()> {
    lab.second_cable()?;
    lab.sh("ip route del default dev eth2; ip route add default via 10.98.0.2 dev eth2 table 200")?;
    let done = lab.nsntrace(["true"])?.run()?.exited(0)?;
    assert!(done.stderr.contains("on interface eth1."), "{}", done.stderr);
    Ok(())
}

/// Nets that are kept for documentation are often routed nowhere.
fn black_holes_are_no_obstacle(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    lab.sh("ip route add blackhole 192.0.2.0/24; ip -6 route add blackhole default")?;
    download(lab, &web)
}

fn unknown_device(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["-d", "nosuch0", "touch", "ran"])?.run()?;
    let line = done.complaint()?;
    assert!(line.contains("Unknown interface: nosuch0"), "{line}");
    assert!(!done.dir.join("ran").exists() && !done.trace().path().exists());
    lab.assert_clean(&before)
}

fn loopback_device(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["-d", "lo", "curl", SERVER_ADDRESS])?.run()?;
    let line = done.complaint()?;
    assert!(line.contains("lo"), "{line}");
    lab.assert_clean(&before)
}
