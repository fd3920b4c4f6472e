//! Services of the host itself, and of the program itself, as the program sees them.

use anyhow::{Context, Result, ensure};
use nsntrace_tests::ask::{answer, ask, start};
use nsntrace_tests::{HOST_ADDRESS, HOST_ADDRESS6, Lab};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    own_addresses_are_reached,
    loopback_is_not_reached,
    host_loopback_is_reached,
    host_loopback_is_no_way_around_the_gateway,
    loopback_is_traced_once,
    loopback_beside_the_link,
];

/// Runs what follows for each gateway.
const GATEWAYS: &str = r#"for gateway in $(ip -4 route show default | cut -d" " -f3) \
    $(ip -6 route show default | cut -d" " -f3); do "#;

/// The answers, in a line each, of `port` at the gateways, by TCP and UDP, each in IPv4 and IPv6.
fn ask_gateways(lab: &Lab, options: &[&str], port: &str) -> Result<Vec<String>> {
    let script =
        format!(r#"{GATEWAYS} for transport in tcp udp; do "$@" $transport $gateway {port} 20; done; done"#);
    let python = ask("", "", "");
    let words = [options, &["-q", "sh", "-c", &script, "sh"], &python[..3]].concat();
    Ok(lab.nsntrace(words)?.output()?.lines().map(String::from).collect())
}

fn own_addresses_are_reached(lab: &Lab) -> Result<()> {
    lab.ipv6_on_the_link()?;
    let server = start(lab.host(answer("8000", &[HOST_ADDRESS, HOST_ADDRESS6]))?)?;
    for address in [HOST_ADDRESS, HOST_ADDRESS6] {
        for transport in ["tcp", "udp"] {
            let words = [&["-q"], &ask(transport, address, "8000")[..]].concat();
            let told = lab.nsntrace(words)?.output()?;
            ensure!(
                told.starts_with("172.16.42.255") || told.starts_with("fd"),
                "{transport} {address}: {told}"
            );
        }
    }
    drop(server);
    let _server = start(lab.host(answer("8000", &["0.0.0.0", "::"]))?)?;
    let told = ask_gateways(lab, &[], "8000")?;
    assert!(told.len() == 4 && told[0] == "172.16.42.255" && told[2].starts_with("fd"), "{told:?}");
    Ok(())
}

fn loopback_is_not_reached(lab: &Lab) -> Result<()> {
    let _server = start(lab.host(answer("8000", &["127.0.0.1", "::1"]))?)?;
    assert_eq!(ask_gateways(lab, &[], "8000")?, ["ConnectionRefusedError"; 4]);
    Ok(())
}

/// Also where the host itself takes nothing.
fn host_loopback_is_reached(lab: &Lab) -> Result<()> {
    take_nothing(lab)?;
    is_reached(lab)
}

/// The host takes nothing but from itself.
pub fn take_nothing(lab: &Lab) -> Result<()> {
    lab.sh("for tool in iptables ip6tables; do $tool -P INPUT DROP; $tool -A INPUT -i lo -j ACCEPT; done")
        .map(drop)
}

/// A program reaches the loopback of the host, and all is as before after it.
pub fn is_reached(lab: &Lab) -> Result<()> {
    let _server = start(lab.host(answer("8000", &["127.0.0.1", "::1"]))?)?;
    let before = lab.snapshot()?;
    let told = ask_gateways(lab, &["--host-loopback"], "8000")?;
    assert_eq!(told[..2], ["172.16.42.255"; 2]);
    assert!(told.len() == 4 && told[2].starts_with("fd") && told[3] == told[2], "{told:?}");
    lab.assert_clean(&before)?;
    // The host's own way there is the same as ever.
    for (address, sender) in [("127.0.0.1", "127.0.0.1\n"), ("::1", "::1\n")] {
        assert_eq!(lab.host(ask("tcp", address, "8000"))?.output()?, sender);
    }
    Ok(())
}

/// A program with root's rights sends to 127.0.0.1 by the link. It must not get anywhere but by the gateway's ports.
fn host_loopback_is_no_way_around_the_gateway(lab: &Lab) -> Result<()> {
    let _server = start(lab.host(answer("8000", &["127.0.0.1"]))?)?;
    let script = r#"
        gateway=$(ip -4 route show default | cut -d" " -f3)
        for setting in /proc/sys/net/ipv4/conf/nscap*/route_localnet; do echo 1 > $setting; done
        ip route flush table local dev lo
        ip route add 127.0.0.1 via $gateway src 172.16.42.255
        "$@" tcp 127.0.0.1 8000 2
    "#;
    let python = ask("", "", "");
    for options in [&["-p", "9000"][..], &["--host-loopback"]] {
        let words = [options, &["-q", "sh", "-e", "-c", script, "sh"], &python[..3]].concat();
        let done = lab.nsntrace(words)?.run()?.exited(0)?;
        assert_eq!(done.text(), "TimeoutError\n", "{options:?}: {}", done.stderr);
        assert!(done.trace().count_of("ip.dst == 127.0.0.1")? > 0, "it was not even sent");
    }
    Ok(())
}

/// A connection and datagrams between two of the program's own, in both families.
const TO_ITSELF: &str = r#"
    "$@" & server=$!
    until ss -Hlnt | grep -q :8000; do sleep 0.02; done
    shift; shift
    for address in 127.0.0.1 ::1; do
        for transport in tcp udp; do python3 -c "$ASK" $transport $address 8000 20; done
    done
    kill $server; wait $server; exit 0
"#;

fn loopback_is_traced_once(lab: &Lab) -> Result<()> {
    let server = answer("8000", &["127.0.0.1", "::1"]);
    let client = ask("", "", "")[2];
    let words = [&["--loopback", "sh", "-c", TO_ITSELF, "sh"], &server[..]].concat();
    let done = lab.nsntrace(words)?.env("ASK", client).run()?.exited(0)?;
    assert_eq!(done.text(), "listening\n127.0.0.1\n127.0.0.1\n::1\n::1\n");
    let trace = done.trace();
    assert_eq!(trace.count_of("tcp.flags.syn == 1 && tcp.flags.ack == 0")?, 2);
    assert_eq!(trace.count_of("udp")?, 4);
    assert_eq!(trace.count_of("tcp.analysis.retransmission || tcp.analysis.duplicate_ack")?, 0);
    assert_eq!(trace.count()?, done.captured()?);
    assert_eq!(trace.info()?.link, "ether");
    Ok(())
}

fn loopback_beside_the_link(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let program = r#"busybox ping -c 1 127.0.0.1 > /dev/null; exec curl -s -o page "$1""#;
    let done = lab.nsntrace(["--loopback", "sh", "-c", program, "sh", &web.url])?.run()?.exited(0)?;
    let trace = done.trace();
    assert_eq!(trace.count_of("icmp")?, 2);
    let body = trace.http_bodies()?.remove("data.bin").context("no download in the trace")?;
    assert!(body == web.body);
    Ok(())
}
