//! `--tls-keys`: a trace whose TLS opens by itself, judged by tshark that is told nothing of keys.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nsntrace_tests::{Done, HOST_ADDRESS, Lab, Pcapng, SOON, TlsVersions, Trace, nsntrace_binary, until};

use crate::check::line;
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    curl_is_open,
    http2_is_open,
    python_and_openssl_are_open,
    several_at_once_are_open,
    resumed_is_open,
    server_is_open,
    slow_program_is_open,
    live_stream_is_open_in_one_pass,
    keys_stand_before_their_packets,
    other_users_may_log,
    own_file_is_fed_too,
    only_keys_are_taken,
    who_opens_anew_is_read,
    each_file_has_the_keys,
    nobody_else_reads_the_trace,
    keys_are_nowhere_else,
    pcap_is_refused,
    another_trace_within,
];

const TRACED: [&str; 3] = ["--tls-keys", "-o", "x.pcapng"];

/// nsntrace with keys and this program.
fn traced(lab: &Lab, program: &[&str]) -> Result<Done> {
    lab.nsntrace([&TRACED[..], program].concat())?.run()?.exited(0)
}

fn trace(done: &Done) -> Trace {
    done.trace_at("x.pcapng")
}

/// What was logged, all of it.
fn keys(done: &Done) -> Result<String> {
    let file = Pcapng::read(&done.dir.join("x.pcapng"))?;
    Ok(file.secrets.into_iter().map(|(_, lines)| lines).collect())
}

fn curl_is_open(lab: &Lab) -> Result<()> {
    for (port, versions) in [(443, TlsVersions::Only12), (444, TlsVersions::Only13)] {
        let server = lab.https(port, versions)?;
        let done = traced(lab, &["curl", "-sk", "--http1.1", &server.url])?;
        assert_eq!(done.text(), server.word);
        let bodies = trace(&done).http_bodies()?;
        assert_eq!(bodies.get("word.txt").map(Vec::as_slice), Some(server.word.as_bytes()), "{versions:?}");
        assert_eq!(trace(&done).count_of("http")?, 2);
        assert_eq!(done.captured()?, trace(&done).count()?);
    }
    Ok(())
}

fn http2_is_open(lab: &Lab) -> Result<()> {
    let server = lab.http2(443)?;
    for version in ["1.2", "1.3"] {
        let done = traced(lab, &["curl", "-sk", "--http2", "--tls-max", version, &server.url])?;
        assert_eq!(done.text(), server.word);
        let paths = trace(&done).fields("http2.headers.path", &["http2.headers.path"])?;
        assert_eq!(paths, [["/word.txt"]], "{version}");
        assert_eq!(trace(&done).count_of("http2.headers.status == 200")?, 1);
    }
    Ok(())
}

/// Asks for a page as often as there are arguments behind the URL, each time with the session of the time before.
const CLIENT: &str = "
import socket, ssl, sys, urllib.parse
url = urllib.parse.urlparse(sys.argv[1])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
session = None
for version in sys.argv[2:]:
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    plain = socket.create_connection((url.hostname, url.port))
    with context.wrap_socket(plain, session=session) as sealed:
        sealed.sendall(f'GET {url.path} HTTP/1.1\\r\\nHost: example.test\\r\\nConnection: close\\r\\n\\r\\n'.encode())
        while sealed.recv(4096):
            pass
        session = sealed.session
        print(sealed.version(), sealed.session_reused)
";

/// It prints the page as well, and does not like how Python ends a connection.
const OPENSSL: &str = r#"
{ printf 'GET /word.txt HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n'; cat; } |
openssl s_client -quiet -connect "$1" -keylogfile "$SSLKEYLOGFILE" 2>/dev/null || true
"#;

fn python_and_openssl_are_open(lab: &Lab) -> Result<()> {
    for (port, versions) in [(443, TlsVersions::Only12), (444, TlsVersions::Only13)] {
        let server = lab.https(port, versions)?;
        let done = traced(lab, &["python3", "-c", CLIENT, &server.url, versions.name()])?;
        assert_eq!(trace(&done).count_of("http.request or http.response")?, 2, "python, {versions:?}");
        let address = server.url.trim_start_matches("https://").trim_end_matches("/word.txt");
        let done = traced(lab, &["sh", "-c", OPENSSL, "sh", address])?;
        assert!(done.text().contains(server.word), "{}", done.text());
        assert_eq!(trace(&done).count_of("http.request or http.response")?, 2, "openssl, {versions:?}");
    }
    Ok(())
}

fn several_at_once_are_open(lab: &Lab) -> Result<()> {
    let servers = [lab.https(443, TlsVersions::Only12)?, lab.https(444, TlsVersions::Only13)?];
    let program = r#"for n in 1 2 3 4 5 6 7 8; do curl -sk "$1" & curl -sk "$2" & done; wait"#;
    let done = traced(lab, &["sh", "-c", program, "sh", &servers[0].url, &servers[1].url])?;
    assert_eq!(done.text().matches(servers[0].word).count(), 16);
    assert_eq!(trace(&done).count_of("http.request")?, 16);
    assert_eq!(trace(&done).count_of("http.response.code == 200")?, 16);
    Ok(())
}

fn resumed_is_open(lab: &Lab) -> Result<()> {
    for (port, versions) in [(443, TlsVersions::Only12), (444, TlsVersions::Only13)] {
        let server = lab.https(port, versions)?;
        let version = versions.name();
        let done = traced(lab, &["python3", "-c", CLIENT, &server.url, version, version, version])?;
        assert_eq!(done.text().matches("True").count(), 2, "it was not resumed: {}", done.text());
        assert_eq!(trace(&done).count_of("http.request")?, 3, "{versions:?}");
        assert_eq!(trace(&done).count_of("http.response.code == 200")?, 3, "{versions:?}");
    }
    Ok(())
}

/// The program is the server: it logs what the client sends as late as when that has come.
fn server_is_open(lab: &Lab) -> Result<()> {
    let certificate = lab.certificate()?.display().to_string();
    for versions in TlsVersions::ALL {
        let served = ["-p", "443"].into_iter().chain(Lab::https_command());
        let arguments = ["0.0.0.0", "443", &certificate, versions.name()];
        let words: Vec<_> = TRACED.into_iter().chain(served).chain(arguments).collect();
        let job = lab.nsntrace(words)?;
        fs::write(job.dir().join("word.txt"), "served")?;
        let server = job.spawn()?;
        let page = until("the server", SOON, || {
            let url = format!("https://{HOST_ADDRESS}/word.txt");
            let page = lab.internet(["curl", "-sk", &url])?.run()?;
            Ok(page.status.success().then(|| page.text()))
        })?;
        assert_eq!(page, "served");
        server.signal(nix::sys::signal::Signal::SIGTERM)?;
        let done = server.wait()?;
        assert_eq!(trace(&done).count_of("http.request")?, 1, "{versions:?}");
        assert_eq!(trace(&done).count_of("http.response.code == 200")?, 1, "{versions:?}");
    }
    Ok(())
}

/// Takes a while before it looks at what the server has answered, and only then has keys to log.
const SLOW_CLIENT: &str = "
import socket, ssl, sys, time, urllib.parse
url = urllib.parse.urlparse(sys.argv[1])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
sealed = context.wrap_bio(received, sent)
plain = socket.create_connection((url.hostname, url.port))
def until_done(step):
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            plain.sendall(sent.read())
            answer = plain.recv(65536)
            time.sleep(0.3)
            received.write(answer)
until_done(sealed.do_handshake)
sealed.write(f'GET {url.path} HTTP/1.1\\r\\nHost: example.test\\r\\n\\r\\n'.encode())
print(until_done(lambda: sealed.read(4096)))
";

fn slow_program_is_open(lab: &Lab) -> Result<()> {
    for (port, versions) in [(443, TlsVersions::Only12), (444, TlsVersions::Only13)] {
        let server = lab.https(port, versions)?;
        let done = traced(lab, &["python3", "-c", SLOW_CLIENT, &server.url])?;
        assert_eq!(trace(&done).count_of("http.request or http.response")?, 2, "{versions:?}");
        let file = Pcapng::read(&done.dir.join("x.pcapng"))?;
        assert!(file.packets.is_sorted_by_key(|packet| packet.time), "not in the order of time");
        assert_eq!(file.packets.len() as u64, done.captured()?);
    }
    Ok(())
}

/// Two connections; before the second tshark has shown the first, though nothing more passes until then.
fn live_stream_is_open_in_one_pass(lab: &Lab) -> Result<()> {
    for (port, versions) in [(443, TlsVersions::Only12), (444, TlsVersions::Only13)] {
        let server = lab.https(port, versions)?;
        let program = r#"curl -sk "$1"; read line; curl -sk "$1"; read line"#;
        let words = ["--tls-keys", "-o", "-", "--format", "pcapng", "sh", "-c", program, "sh", &server.url];
        let mut run = lab.nsntrace(words)?.told().piped().spawn()?;
        let shown = lab.dir().join(format!("shown-{port}"));
        let mut tshark = Command::new("tshark")
            .args([
                "-l",
                "-n",
                "-r",
                "-",
                "-Y",
                "http",
                "-T",
                "fields",
                "-e",
                "http.request.uri",
                "-e",
                "http.response.code",
            ])
            .stdin(Stdio::from(run.stdout_pipe()?))
            .stdout(fs::File::create(&shown)?)
            .spawn()?;
        let mut program = run.stdin_pipe()?;
        let expected = "/word.txt\t\n\t200\n";
        for times in 1..=2 {
            let open = || Ok((fs::read_to_string(&shown)? == expected.repeat(times)).then_some(()));
            let opened = until("the open connection", SOON, open);
            opened.with_context(|| format!("{versions:?}: {:?}", fs::read_to_string(&shown)))?;
            program.write_all(b"\n")?;
        }
        run.wait()?.exited(0)?;
        ensure!(tshark.wait()?.success(), "tshark complains");
    }
    Ok(())
}

/// Not only tshark finds it so.
fn keys_stand_before_their_packets(lab: &Lab) -> Result<()> {
    for (port, versions) in [(443, TlsVersions::Only12), (444, TlsVersions::Only13)] {
        let server = lab.https(port, versions)?;
        let program = r#"for n in 1 2 3 4 5; do curl -sk "$1"; done"#;
        let done = traced(lab, &["sh", "-c", program, "sh", &server.url])?;
        let hello = if versions == TlsVersions::Only13 {
            "tls.handshake.type == 2"
        } else {
            "tls.handshake.type == 16"
        };
        let numbers = trace(&done).fields(hello, &["frame.number"])?;
        assert_eq!(numbers.len(), 5);
        let file = Pcapng::read(&done.dir.join("x.pcapng"))?;
        for (nth, number) in numbers.iter().enumerate() {
            let number: usize = number[0].parse()?;
            let before = file.secrets.iter().filter(|(packets, _)| *packets < number);
            let label =
                if versions == TlsVersions::Only13 { "SERVER_TRAFFIC_SECRET_0 " } else { "CLIENT_RANDOM " };
            let logged: usize = before.map(|(_, lines)| lines.matches(label).count()).sum();
            assert!(logged > nth, "{versions:?}: {logged} keys before packet {number}");
        }
        assert!(file.packets.is_sorted_by_key(|packet| packet.time), "not in the order of time");
    }
    Ok(())
}

fn other_users_may_log(lab: &Lab) -> Result<()> {
    let server = lab.https(443, TlsVersions::Only13)?;
    let as_user = ["--tls-keys", "-o", "x.pcapng", "-u", "nobody", "curl", "-sk", &server.url];
    let done = lab.nsntrace(as_user)?.run()?.exited(0)?;
    assert_eq!(trace(&done).count_of("http.request")?, 1);
    // A child of root's program that has left root behind may add keys, and not read those of others.
    let drop = "exec setpriv --reuid 65534 --regid 65534 --clear-groups";
    let program = format!(r#"{drop} sh -c 'curl -sk "$1"; cat "$SSLKEYLOGFILE"' sh "$1""#);
    let done = lab.nsntrace([&TRACED[..], &["sh", "-c", &program, "sh", &server.url]].concat())?.run()?;
    assert!(done.text() == server.word && done.stderr.contains("Permission denied"), "{}", done.stderr);
    assert_eq!(trace(&done).count_of("http.request")?, 1);
    Ok(())
}

fn own_file_is_fed_too(lab: &Lab) -> Result<()> {
    let server = lab.https(443, TlsVersions::Only13)?;
    let job = lab.nsntrace([&TRACED[..], &["curl", "-sk", &server.url]].concat())?;
    fs::write(job.dir().join("own.log"), "# mine\n")?;
    let done = job.env("SSLKEYLOGFILE", "own.log").run()?.exited(0)?;
    let own = fs::read_to_string(done.dir.join("own.log"))?;
    let logged = keys(&done)?;
    assert!(logged.contains("CLIENT_TRAFFIC_SECRET_0 ") && own == format!("# mine\n{logged}"), "{own}");
    assert_eq!(trace(&done).count_of("http.request")?, 1);

    let refused = lab.nsntrace([&TRACED[..], &["touch", "ran"]].concat())?.env("SSLKEYLOGFILE", "no/own.log");
    let refused = refused.run()?;
    let why = refused.complaint()?;
    assert!(why.contains("no/own.log of SSLKEYLOGFILE"), "{why}");
    assert!(!refused.dir.join("ran").exists());

    let check =
        |file: &str| lab.nsntrace([&["--check"], &TRACED[..]].concat())?.env("SSLKEYLOGFILE", file).run();
    let told = check("no/own.log")?.exited(1)?.text();
    assert_eq!(line(&told, "--tls-keys")?, ("missing", why.trim_start_matches("nsntrace: ")));
    let checked = check("own.log")?.exited(0)?;
    assert!(line(&checked.text(), "--tls-keys")?.0 == "found" && !checked.dir.join("own.log").exists());
    Ok(())
}

fn only_keys_are_taken(lab: &Lab) -> Result<()> {
    let server = lab.https(443, TlsVersions::Only13)?;
    let program = r#"head -c 3000000 /dev/urandom >>"$SSLKEYLOGFILE"
        printf '\nCLIENT_RANDOM ab cd\n# a comment\n' >>"$SSLKEYLOGFILE"; curl -sk "$1"; printf unfinished >>"$SSLKEYLOGFILE""#;
    let done = traced(lab, &["sh", "-c", program, "sh", &server.url])?;
    assert_eq!(trace(&done).count_of("http.request")?, 1);
    let logged = keys(&done)?;
    assert!(logged.lines().all(|line| line.contains("SECRET")), "{logged}");
    Ok(())
}

/// Go programs and others that truncate the file.
fn who_opens_anew_is_read(lab: &Lab) -> Result<()> {
    let server = lab.https(443, TlsVersions::Only13)?;
    let program = r#"curl -sk "$1"; curl -sk "$1"; sleep 0.1; : >"$SSLKEYLOGFILE"; curl -sk "$1""#;
    let done = traced(lab, &["sh", "-c", program, "sh", &server.url])?;
    assert_eq!(trace(&done).count_of("http.request")?, 3);
    Ok(())
}

/// Each trace of a rotation opens by itself, as far as the handshakes in it. One may be in two files, by chance: then all is
/// done anew.
fn each_file_has_the_keys(lab: &Lab) -> Result<()> {
    let server = lab.https(443, TlsVersions::Only13)?;
    let web = lab.web()?;
    for _ in 0..5 {
        let (whole, requests, secrets) = rotated(lab, &server.url, &web.url)?;
        if whole == 4 {
            assert_eq!((requests, secrets), (4, 4));
            return Ok(());
        }
    }
    bail!("some connection is in two files each time");
}

/// Four connections, as far as they are in one file; and of all files the requests that are read, and the secrets.
fn rotated(lab: &Lab, server: &str, web: &str) -> Result<(usize, usize, usize)> {
    let program = r#"for n in 1 2 3; do curl -sk "$1"; curl -s -o page "$2"; done; curl -sk "$1""#;
    let words = ["-C", "1", "--tls-keys", "-o", "x.pcapng", "sh", "-c", program, "sh", server, web];
    let done = lab.nsntrace(words)?.run()?.exited(0)?;
    let (mut files, mut whole, mut requests, mut known) = (0, 0, 0, String::new());
    loop {
        let number = if files == 0 { String::new() } else { files.to_string() };
        let path = done.dir.join(format!("x.pcapng{number}"));
        if !path.exists() {
            break;
        }
        let file = Pcapng::read(&path)?;
        let from_the_start: String =
            file.secrets.iter().filter(|(packets, _)| *packets == 0).map(|(_, lines)| &lines[..]).collect();
        assert!(from_the_start.starts_with(&known), "the keys of the files before are not in file {files}");
        known = file.secrets.into_iter().map(|(_, lines)| lines).collect();
        let trace = Trace::new(path);
        requests += trace.count_of("tls && http.request")?;
        whole += whole_connections(&trace)?;
        files += 1;
    }
    assert!(files > 6, "{files} files");
    Ok((whole, requests, known.matches("CLIENT_TRAFFIC_SECRET_0").count()))
}

/// How many connections to the server begin and end in a trace.
fn whole_connections(trace: &Trace) -> Result<usize> {
    let those = |filter: &str| -> Result<BTreeSet<Vec<String>>> {
        let filter = format!("tcp.dstport == 443 && {filter}");
        Ok(trace.fields(&filter, &["tcp.stream"])?.into_iter().collect())
    };
    Ok(those("tcp.flags.syn == 1")?.intersection(&those("tcp.flags.fin == 1")?).count())
}

fn nobody_else_reads_the_trace(lab: &Lab) -> Result<()> {
    let job = lab.nsntrace([&TRACED[..], &["true"]].concat())?;
    let path = job.dir().join("x.pcapng");
    fs::write(&path, "an older one")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    job.run()?.exited(0)?;
    assert_eq!(path.metadata()?.permissions().mode() & 0o777, 0o600);
    Ok(())
}

/// The file is in the program's view alone, and goes away with it.
fn keys_are_nowhere_else(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let program = r#"echo "$SSLKEYLOGFILE"; stat -f -c %T "$SSLKEYLOGFILE"; read line"#;
    let mut run = lab.nsntrace([&TRACED[..], &["sh", "-c", program]].concat())?.told().spawn()?;
    let said = run.says("tmpfs\n")?;
    let path = said.lines().next().context("no path")?;
    lab.host(["stat", path])?.run()?.exited(1)?;
    run.stdin_pipe()?.write_all(b"\n")?;
    run.wait()?.exited(0)?;
    lab.assert_clean(&before)
}

fn pcap_is_refused(lab: &Lab) -> Result<()> {
    let done = lab.nsntrace(["--tls-keys", "touch", "ran"])?.run()?;
    assert_eq!(done.status.code(), Some(1));
    let line = done.complaint()?;
    assert!(line.contains("--tls-keys") && line.contains("--format pcapng"), "{line}");
    assert!(!done.dir.join("ran").exists() && !done.trace().path().exists());
    Ok(())
}

/// Its program finds a folder of the outer one in /run/nsntrace.
fn another_trace_within(lab: &Lab) -> Result<()> {
    let server = lab.https(443, TlsVersions::Only13)?;
    let before = lab.snapshot()?;
    let inner = nsntrace_binary()?.display().to_string();
    let done = traced(lab, &[&inner, "-q", "-o", "inner.pcap", "curl", "-sk", "--http1.1", &server.url])?;
    assert_eq!(done.text(), server.word);
    assert_eq!(trace(&done).http_bodies()?.get("word.txt").map(Vec::as_slice), Some(server.word.as_bytes()));
    ensure!(done.trace_at("inner.pcap").count()? > 0, "the inner trace is empty");
    lab.assert_clean(&before)
}
