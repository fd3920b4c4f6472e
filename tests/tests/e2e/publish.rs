//! Ports of the program that are reached at the host's.

use std::fs;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::ask::{answer, ask, ask_in_vain, start};
use nsntrace_tests::{Done, HOST_ADDRESS, HOST_ADDRESS6, Lab, Running, SOON, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    reached_from_everywhere,
    web_server,
    several_ports,
    one_address_only,
    reached_by_a_device_without_a_default_route,
    firewall_that_forwards_nothing,
    not_reached_without_it,
    two_runs,
    old_connections_are_no_server,
    what_cannot_be_published,
    tracer_is_killed,
    many_ports,
];

const INTERNET: &str = "10.99.0.2";
const INTERNET6: &str = "2001:db8:99::2";
const REFUSED: &str = "ConnectionRefusedError\n";

/// A server on port 8000 under trace, with these options.
fn serve(lab: &Lab, options: &[&str]) -> Result<Running> {
    start(lab.nsntrace([options, &answer("8000", &["0.0.0.0", "::"])].concat())?)
}

fn end(run: Running) -> Result<Done> {
    run.signal(Signal::SIGTERM)?;
    run.wait()?.exited(128 + Signal::SIGTERM as i32)
}

fn from_internet(lab: &Lab, transport: &str, address: &str, port: &str) -> Result<String> {
    lab.internet(ask(transport, address, port))?.output()
}

fn from_host(lab: &Lab, transport: &str, address: &str, port: &str) -> Result<String> {
    lab.host(ask(transport, address, port))?.output()
}

pub fn reached_from_everywhere(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let before = lab.snapshot()?;
    let run = serve(lab, &["-p", "8000", "-p", "8000/udp"])?;
    for transport in ["tcp", "udp"] {
        for (address, client) in [(HOST_ADDRESS, INTERNET), (HOST_ADDRESS6, INTERNET6)] {
            assert_eq!(from_internet(lab, transport, address, "8000")?.trim_end(), client, "{transport}");
            assert_eq!(from_host(lab, transport, address, "8000")?.trim_end(), address, "{transport}");
        }
        // Nobody answers a sender that is loopback to him: it is the gateway that asks.
        assert_eq!(from_host(lab, transport, "127.0.0.1", "8000")?, "172.16.42.254\n", "{transport}");
        let client = from_host(lab, transport, "::1", "8000")?;
        assert!(client.starts_with("fd"), "{transport}: {client}");
    }
    let trace = end(run)?.trace();
    for client in [INTERNET, HOST_ADDRESS] {
        assert_eq!(trace.count_of(&format!("ip.src == {client} && tcp.flags.syn == 1"))?, 1, "{client}");
        assert_eq!(trace.count_of(&format!("ip.src == {client} && udp"))?, 1, "{client}");
    }
    for client in [INTERNET6, HOST_ADDRESS6] {
        assert_eq!(trace.count_of(&format!("ipv6.src == {client} && tcp.flags.syn == 1"))?, 1, "{client}");
    }
    lab.assert_clean(&before)
}

pub fn web_server(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let before = lab.snapshot()?;
    let program = ["-p", "8080", "python3", "-u", "-m", "http.server", "--bind", "::", "8080"];
    let job = lab.nsntrace(program)?;
    let page: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(job.dir().join("page"), &page)?;
    let mut run = job.spawn()?;
    run.says("Serving HTTP")?;
    for url in [format!("http://{HOST_ADDRESS}:8080/page"), format!("http://[{HOST_ADDRESS6}]:8080/page")] {
        let done = lab.internet(["curl", "-s", "-S", "-m", "20", &url])?.run()?.exited(0)?;
        assert!(done.stdout == page, "{url}");
    }
    assert!(end(run)?.trace().http_bodies()?.get("page") == Some(&page));
    lab.assert_clean(&before)
}

fn several_ports(lab: &Lab) -> Result<()> {
    let script = r#"python3 -c "$1" 8001 0.0.0.0 & exec python3 -c "$1" 8000 0.0.0.0"#;
    let server = answer("", &[])[2];
    let words = ["-p", "8000", "-p", "8001", "sh", "-c", script, "sh", server];
    let mut run = lab.nsntrace(words)?.spawn()?;
    run.says("listening\nlistening")?;
    for port in ["8000", "8001"] {
        assert_eq!(from_internet(lab, "tcp", HOST_ADDRESS, port)?.trim_end(), INTERNET);
    }
    end(run).map(drop)
}

fn one_address_only(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    for (publish, family) in [("127.0.0.1:8000", "127.0.0.1"), ("[::1]:8000", "::1")] {
        let run = serve(lab, &["-p", publish])?;
        ensure!(!from_host(lab, "tcp", family, "8000")?.contains("Error"), "{publish} is not reached");
        for address in [HOST_ADDRESS, HOST_ADDRESS6] {
            assert_eq!(from_internet(lab, "tcp", address, "8000")?, REFUSED, "{publish}");
            assert_eq!(from_host(lab, "tcp", address, "8000")?, REFUSED, "{publish}");
        }
        end(run)?;
    }
    let run = serve(lab, &["-p", "10.99.0.1:8000", "-p", "[::]:8000/udp"])?;
    assert_eq!(from_internet(lab, "tcp", HOST_ADDRESS, "8000")?.trim_end(), INTERNET);
    assert_eq!(from_internet(lab, "udp", HOST_ADDRESS6, "8000")?.trim_end(), INTERNET6);
    assert_eq!(from_internet(lab, "tcp", HOST_ADDRESS6, "8000")?, REFUSED);
    assert_eq!(from_host(lab, "tcp", "127.0.0.1", "8000")?, REFUSED);
    assert_eq!(from_internet(lab, "udp", HOST_ADDRESS, "8000")?, REFUSED);
    end(run).map(drop)
}

/// A second cable, which nothing of the host's own goes out by.
fn reached_by_a_device_without_a_default_route(lab: &Lab) -> Result<()> {
    lab.second_cable()?;
    lab.sh("ip route del default dev eth2")?;
    let before = lab.snapshot()?;
    let run = serve(lab, &["-p", "8000"])?;
    assert_eq!(from_internet(lab, "tcp", "10.98.0.1", "8000")?, "10.98.0.2\n");
    end(run)?;
    lab.assert_clean(&before)
}

fn firewall_that_forwards_nothing(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    lab.sh("for tool in iptables ip6tables; do $tool -P FORWARD DROP; $tool -A FORWARD -j DROP; done")?;
    let run = serve(lab, &["-p", "8000"])?;
    assert_eq!(from_internet(lab, "tcp", HOST_ADDRESS, "8000")?.trim_end(), INTERNET);
    assert_eq!(from_internet(lab, "tcp", HOST_ADDRESS6, "8000")?.trim_end(), INTERNET6);
    // What is not published stays out, whoever knows the way.
    lab.internet(["ip", "route", "add", "172.16.42.255", "via", HOST_ADDRESS])?.output()?;
    assert_eq!(lab.internet(ask_in_vain("udp", "172.16.42.255", "8000"))?.output()?, "TimeoutError\n");
    assert_eq!(lab.internet(ask_in_vain("tcp", "172.16.42.255", "8000"))?.output()?, "TimeoutError\n");
    end(run).map(drop)
}

fn not_reached_without_it(lab: &Lab) -> Result<()> {
    let run = serve(lab, &[])?;
    assert_eq!(from_internet(lab, "tcp", HOST_ADDRESS, "8000")?, REFUSED);
    assert_eq!(from_host(lab, "tcp", "127.0.0.1", "8000")?, REFUSED);
    end(run).map(drop)
}

/// Each has its port, and one reaches the other at the host's address.
fn two_runs(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let one = serve(lab, &["-p", "8000"])?;
    let two = start(lab.nsntrace([&["-p", "8001"], &answer("8001", &["0.0.0.0"])[..]].concat())?)?;
    for port in ["8000", "8001"] {
        assert_eq!(from_internet(lab, "tcp", HOST_ADDRESS, port)?.trim_end(), INTERNET);
    }
    let words = [&["-q"], &ask("tcp", HOST_ADDRESS, "8000")[..]].concat();
    let client = lab.nsntrace(words)?.output()?;
    assert!(!client.contains("Error"), "{client}");
    end(two)?;
    assert_eq!(from_internet(lab, "tcp", HOST_ADDRESS, "8001")?, REFUSED);
    assert_eq!(from_internet(lab, "tcp", HOST_ADDRESS, "8000")?.trim_end(), INTERNET);
    end(one)?;
    lab.assert_clean(&before)
}

/// A server of the host had the port a moment ago.
fn old_connections_are_no_server(lab: &Lab) -> Result<()> {
    let server = start(lab.host(answer("8000", &["0.0.0.0"]))?)?;
    // Whoever closes first keeps the old connection: mostly the server.
    until("an old connection", SOON, || {
        assert_eq!(from_internet(lab, "tcp", HOST_ADDRESS, "8000")?.trim_end(), INTERNET);
        let waiting = lab.host(["ss", "-Hnta", "state", "time-wait", "sport = :8000"])?.output()?;
        Ok((!waiting.is_empty()).then_some(()))
    })?;
    drop(server);
    let run = serve(lab, &["-p", "8000"])?;
    assert_eq!(from_internet(lab, "tcp", HOST_ADDRESS, "8000")?.trim_end(), INTERNET);
    end(run).map(drop)
}

fn what_cannot_be_published(lab: &Lab) -> Result<()> {
    let _server = start(lab.host(answer("9000", &["127.0.0.1"]))?)?;
    let run = serve(lab, &["-p", "8000"])?;
    let before = lab.snapshot()?;
    for (options, reason) in [
        (&["-p", "9000"][..], "TCP port 9000 of this host is in use"),
        (&["-p", "9000/udp"], "UDP port 9000 of this host is in use"),
        (&["-p", "8000"], "TCP port 8000 of this host is in use"),
        (&["-p", "10.1.2.3:80"], "does not have that address"),
        (&["-p", "80", "-p", "80"], "published already"),
        (&["-p", "0"], "PORT is a number"),
        (&["-p", "80/sctp"], "can only be udp"),
        (&["-p", "8080:80"], "HOST is an address"),
        (&["-p", "::1:80"], "in brackets"),
    ] {
        let done = lab.nsntrace([options, &["touch", "ran"]].concat())?.run()?;
        let line = done.complaint()?;
        assert!(line.contains(reason) && line.contains("-p "), "{line}");
        assert!(!done.dir.join("ran").exists() && !done.trace().path().exists());
    }
    let now = lab.snapshot()?;
    ensure!(now == before, "something is left:\n{}", before.diff(&now));
    end(run).map(drop)
}

fn tracer_is_killed(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let before = lab.snapshot()?;
    let run = serve(lab, &["-p", "8000", "--host-loopback"])?;
    assert!(lab.snapshot()?.has(&["ip6tables nat -A PREROUTING", "--dport 8000", "nsntrace:"]));
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    lab.assert_clean(&before)
}

/// Their record is long, and read by other runs and by the guardian.
fn many_ports(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let ports: Vec<_> = (20_000..20_080).map(|port| port.to_string()).collect();
    let mut words: Vec<_> = ports.iter().flat_map(|port| ["-p", port]).collect();
    words.extend(["sh", "-c", "echo ready; exec sleep 1000"]);
    let mut run = lab.nsntrace(words)?.spawn()?;
    run.says("ready")?;
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    lab.assert_clean_within(SOON, &before)
}
