//! The program's view of /etc/resolv.conf and of the sockets of look-up services, whatever the host does with them.

use std::io::Write;

use anyhow::Result;
use nsntrace_tests::{Lab, Running, Server};

use crate::dns::{WWW, write_resolv_conf};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    rest_is_kept,
    file_is_missing,
    file_is_empty,
    link_leads_nowhere,
    file_is_rewritten,
    file_is_replaced,
    target_of_a_link_is_replaced,
    link_is_replaced,
    link_takes_the_place_of_a_file,
    file_comes_and_goes,
    view_is_the_programs_own,
    sockets_are_covered,
    socket_that_is_made_anew,
    socket_whose_folder_is_made_later,
];

/// A dnsmasq on this address of the host, at which `www.example.test` has the address 10.0.0.`number`.
fn numbered_server(lab: &Lab, address: &str, number: u8) -> Result<Server> {
    let record = format!("--host-record=www.example.test,10.0.0.{number}");
    let listen = format!("--listen-address={address}");
    lab.host_name_server(address, &["--bind-interfaces", &listen, &record])
}

fn rest_is_kept(lab: &Lab) -> Result<()> {
    let text =
        "# a comment\nsearch example.test corp.test\nnameserver 127.0.0.53\noptions timeout:3 ndots:2\n";
    write_resolv_conf(lab, text)?;
    let _server =
        lab.host_name_server("127.0.0.53", &["--bind-interfaces", "--listen-address=127.0.0.53", WWW])?;
    let script = "grep -v '#' /etc/resolv.conf; getent ahostsv4 www | head -1 | cut -d' ' -f1";
    let text = lab.nsntrace(["-q", "sh", "-c", script])?.output()?;
    let expected =
        "nameserver 172.16.42.254\nsearch example.test corp.test\noptions timeout:3 ndots:2\n203.0.113.7\n";
    assert_eq!(text, expected);
    Ok(())
}

/// Where the C library has no server it asks 127.0.0.1.
fn server_on_this_host_is_asked(lab: &Lab) -> Result<()> {
    let _server = numbered_server(lab, "127.0.0.1", 1)?;
    let before = lab.snapshot()?;
    let script = "getent ahostsv4 www.example.test; dig @127.0.0.1 +tcp +short www.example.test";
    let done = lab.nsntrace(["sh", "-c", script])?.run()?.exited(0)?;
    assert!(done.text().starts_with("10.0.0.1 ") && done.text().ends_with("\n10.0.0.1\n"), "{}", done.text());
    let trace = done.trace();
    assert!(trace.count_of("dns.a == 10.0.0.1 && ip.src == 172.16.42.254 && udp.srcport == 53")? > 0);
    lab.assert_clean(&before)
}

pub fn file_is_missing(lab: &Lab) -> Result<()> {
    lab.sh("rm /etc/resolv.conf")?;
    server_on_this_host_is_asked(lab)
}

fn file_is_empty(lab: &Lab) -> Result<()> {
    write_resolv_conf(lab, "")?;
    let _server = numbered_server(lab, "127.0.0.1", 1)?;
    let text = lab
        .nsntrace(["-q", "sh", "-c", "getent ahostsv4 www.example.test; cat /etc/resolv.conf"])?
        .output()?;
    assert!(text.starts_with("10.0.0.1 ") && text.ends_with("\nnameserver 172.16.42.254\n"), "{text}");
    Ok(())
}

fn link_leads_nowhere(lab: &Lab) -> Result<()> {
    lab.sh("ln -sf /run/nowhere/resolv.conf /etc/resolv.conf")?;
    let _server = numbered_server(lab, "127.0.0.1", 1)?;
    let text = lab
        .nsntrace(["-q", "sh", "-c", "getent ahostsv4 www.example.test; cat /etc/resolv.conf"])?
        .output()?;
    assert!(text.starts_with("10.0.0.1 ") && text.ends_with("\nnameserver 172.16.42.254\n"), "{text}");
    assert_eq!(lab.sh("readlink /etc/resolv.conf")?, "/run/nowhere/resolv.conf\n");
    Ok(())
}

/// Looks the name up for each line on stdin. Where the host has just replaced its file, the program sees that for a
/// moment.
const ASKED: &str = r#"
while read number; do
    until grep -q "^nameserver 172.16.42.254$" /etc/resolv.conf; do sleep 0.02; done
    echo "$number: $(getent ahostsv4 www.example.test | head -1)"
done
"#;

/// A program that looks the name up once before the host's script, and once after it. The answers come from two servers.
fn follows(lab: &Lab, before: &str, change: &str) -> Result<()> {
    let _first = numbered_server(lab, "127.0.0.53", 1)?;
    let _second = numbered_server(lab, "127.0.0.54", 2)?;
    lab.sh(before)?;
    let mut run = lab.nsntrace(["-q", "sh", "-c", ASKED])?.told().spawn()?;
    let mut stdin = run.stdin_pipe()?;
    let mut ask = |run: &mut Running, number: u8| -> Result<()> {
        writeln!(stdin, "{number}")?;
        run.says(&format!("{number}: 10.0.0.{number} ")).map(drop)
    };
    ask(&mut run, 1)?;
    lab.sh(change)?;
    ask(&mut run, 2)?;
    drop(stdin);
    run.wait()?.exited(0)?;
    Ok(())
}

fn file_is_rewritten(lab: &Lab) -> Result<()> {
    follows(
        lab,
        "echo nameserver 127.0.0.53 > /etc/resolv.conf",
        "echo nameserver 127.0.0.54 > /etc/resolv.conf",
    )
}

fn file_is_replaced(lab: &Lab) -> Result<()> {
    let change = "echo nameserver 127.0.0.54 > /etc/new; mv /etc/new /etc/resolv.conf";
    follows(lab, "echo nameserver 127.0.0.53 > /etc/resolv.conf", change)
}

const LINK: &str = "mkdir /run/resolver; echo nameserver 127.0.0.53 > /run/resolver/resolv.conf
    ln -sf ../run/resolver/resolv.conf /etc/resolv.conf";

fn target_of_a_link_is_replaced(lab: &Lab) -> Result<()> {
    let change =
        "echo nameserver 127.0.0.54 > /run/resolver/new; mv /run/resolver/new /run/resolver/resolv.conf";
    follows(lab, LINK, change)
}

fn link_is_replaced(lab: &Lab) -> Result<()> {
    let change = "echo nameserver 127.0.0.54 > /run/resolver/other
        ln -s ../run/resolver/other /etc/new; mv -T /etc/new /etc/resolv.conf";
    follows(lab, LINK, change)
}

fn link_takes_the_place_of_a_file(lab: &Lab) -> Result<()> {
    let change = "echo nameserver 127.0.0.54 > /run/other; ln -sf /run/other /etc/resolv.conf";
    follows(lab, "echo nameserver 127.0.0.53 > /etc/resolv.conf", change)
}

fn file_comes_and_goes(lab: &Lab) -> Result<()> {
    let change =
        "for i in 1 2 3 4 5; do rm -f /etc/resolv.conf; echo nameserver 127.0.0.54 > /etc/resolv.conf; done";
    follows(lab, "echo nameserver 127.0.0.53 > /etc/resolv.conf", change)
}

/// What it writes there the host does not see, and it finds nothing else of ours.
fn view_is_the_programs_own(lab: &Lab) -> Result<()> {
    write_resolv_conf(lab, "nameserver 127.0.0.53\n")?;
    let before = lab.snapshot()?;
    let script = "echo options debug >> /etc/resolv.conf; ls /sys/class/net; cat /etc/resolv.conf";
    let text = lab.nsntrace(["-q", "sh", "-c", script])?.output()?;
    assert!(text.starts_with("lo\nnscap") && text.ends_with("\noptions debug\n"), "{text}");
    lab.assert_clean(&before)
}

/// Sockets of look-up services, made by a process that takes every connection and closes it at once. Makes them anew for
/// each line on stdin.
const SERVICES: &str = r#"
import os, select, socket, sys
def make(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.exists(path):
        os.unlink(path)
    service = socket.socket(socket.AF_UNIX)
    service.bind(path)
    os.chmod(path, 0o666)
    service.listen()
    return service
line = True
while line:
    services = [make(path) for path in sys.argv[1:]]
    print("ready", flush=True)
    line = None
    while line is None:
        for ready in select.select([sys.stdin] + services, [], [])[0]:
            if ready is sys.stdin:
                line = sys.stdin.readline()
            else:
                ready.accept()[0].close()
"#;

const SOCKETS: [&str; 3] =
    ["/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket", "/run/avahi-daemon/socket"];

/// How the connection to each of the sockets fares, until none is made.
const CONNECT: &str = r#"
import socket, sys, time
def connects(path):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        return True
    except ConnectionRefusedError:
        return False
    except FileNotFoundError:
        return None
def look(patient):
    while patient and any(map(connects, sys.argv[1:])):
        time.sleep(0.02)
    print([connects(path) for path in sys.argv[1:]], flush=True)
look(False)
if sys.stdin.readline():
    look(True)
"#;

fn services(lab: &Lab) -> Result<Running> {
    let mut services = lab.host([&["python3", "-c", SERVICES], &SOCKETS[..]].concat())?.told().spawn()?;
    services.says("ready")?;
    Ok(services)
}

/// They are whether there is a relay or not.
fn sockets_are_covered(lab: &Lab) -> Result<()> {
    let _services = services(lab)?;
    let before = lab.snapshot()?;
    for server in ["127.0.0.53", "203.0.113.7"] {
        write_resolv_conf(lab, &format!("nameserver {server}\n"))?;
        for user in ["root", "nobody"] {
            let words =
                [&["-q", "-o", "/dev/null", "-u", user, "python3", "-c", CONNECT], &SOCKETS[..]].concat();
            assert_eq!(lab.nsntrace(words)?.output()?, "[False, False, False]\n", "{server} {user}");
        }
        assert_eq!(
            lab.host([&["python3", "-c", CONNECT], &SOCKETS[..]].concat())?.output()?,
            "[True, True, True]\n",
            "the host's own sockets"
        );
    }
    lab.assert_clean(&before)
}

/// As where a service is started for the first time, and makes its folder.
fn socket_whose_folder_is_made_later(lab: &Lab) -> Result<()> {
    let words = [&["-q", "python3", "-c", CONNECT], &SOCKETS[..]].concat();
    let mut run = lab.nsntrace(words)?.told().spawn()?;
    run.says("[None, None, None]\n")?;
    let _services = services(lab)?;
    writeln!(run.stdin_pipe()?)?;
    let done = run.wait()?.exited(0)?;
    assert_eq!(done.text(), "[None, None, None]\n[False, False, False]\n");
    Ok(())
}

/// As a service does that is started again.
fn socket_that_is_made_anew(lab: &Lab) -> Result<()> {
    let mut services = services(lab)?;
    let mut host = services.stdin_pipe()?;
    let words = [&["-q", "python3", "-c", CONNECT], &SOCKETS[..]].concat();
    let mut run = lab.nsntrace(words)?.told().spawn()?;
    run.says("[False, False, False]\n")?;
    writeln!(host)?;
    services.says("ready\nready\n")?;
    writeln!(run.stdin_pipe()?)?;
    let done = run.wait()?.exited(0)?;
    assert_eq!(done.text(), "[False, False, False]\n[False, False, False]\n");
    Ok(())
}
