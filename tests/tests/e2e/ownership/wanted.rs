//! `--process`: only packets of processes with a name.

use anyhow::{Context, Result};
use nsntrace_tests::{Done, Lab, SERVER_ADDRESS, ask, number_before};

use super::{EXECUTES, LATE, owners, printed, run};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    process_by_name,
    process_and_filter,
    process_that_changes_its_name,
    process_that_has_ended,
    wrong_process,
];

/// What each of several programs does, and the packets of all of them as the interface counts them.
const SEVERAL: &str = r#"
    count() { cat /sys/class/net/nscap*/statistics/?x_packets | paste -s -d + | sed "s/.*/$1 &/"; }
    count before
    for number in 1 2 3; do python3 -c "$1" udp "$2" 7 20 >/dev/null; done
    busybox ping -c 2 "$2" >/dev/null
    curl -s -o page "$3"
    count after"#;

fn several(lab: &Lab, options: &[&str]) -> Result<Done> {
    let _echo = lab.udp_echo(7)?;
    let web = lab.web()?;
    let ask = ask::ask("udp", "", "")[2];
    let words = ["sh", "-c", SEVERAL, "sh", ask, SERVER_ADDRESS, &web.url];
    let done = run(lab, &[&["-v"], options].concat(), &words)?;
    // Nothing is missing in the books: what passed was kept, or counted as filtered out.
    let count = |word: &str| -> Result<u64> {
        Ok(printed(&done, word)?.split('+').map(str::parse::<u64>).sum::<Result<_, _>>()?)
    };
    let sum = count("after")? - count("before")?;
    let books = done.line_with(" packets filtered out")?;
    let (filtered, rest) = books.split_once(" packets filtered out, ").context("no books")?;
    let filtered: u64 = filtered.trim_start_matches("nsntrace: ").parse()?;
    assert_eq!(filtered + number_before(rest, " matched")?, sum, "{books}");
    assert_eq!(number_before(rest, " matched")?, done.captured()?);
    Ok(done)
}

fn process_by_name(lab: &Lab) -> Result<()> {
    let done = several(lab, &["--process", "python3"])?;
    let trace = done.trace_at("x.pcapng");
    assert_eq!((trace.count()?, trace.count_of("udp.port == 7")?), (6, 6));
    assert!(owners(&done, "udp")?.iter().all(|owner| owner.ends_with(" python3")));
    // Of several, and in a format that does not tell of them.
    drop(done);
    let lab = Lab::new()?;
    let done = several(&lab, &["--process", "busybox", "--process", "curl", "--format", "pcap"])?;
    let trace = done.trace_at("x.pcapng");
    assert_eq!((trace.count_of("!icmp && !tcp")?, trace.count_of("icmp")?), (0, 4));
    assert!(trace.count_of("tcp")? > 20);
    assert!(trace.http_bodies()?.contains_key("data.bin"));
    Ok(())
}

fn process_and_filter(lab: &Lab) -> Result<()> {
    let done = several(
        lab,
        &["--process", "python3", "--process", "curl", "-f", "udp and inbound or tcp[13] & 2 != 0"],
    )?;
    let trace = done.trace_at("x.pcapng");
    assert_eq!(trace.count()?, 5);
    assert_eq!((trace.count_of("udp.srcport == 7")?, trace.count_of("tcp.flags.syn == 1")?), (3, 2));
    Ok(())
}

fn process_that_changes_its_name(lab: &Lab) -> Result<()> {
    let _sink = lab.udp_sink(9)?;
    for (name, word) in [("python3", "before"), ("sh", "after")] {
        let program = ["python3", "-c", EXECUTES, SERVER_ADDRESS];
        let done = run(lab, &["--process", name], &program)?;
        let trace = done.trace_at("x.pcapng");
        assert_eq!(
            (trace.count()?, trace.count_of(&format!("frame contains \"{word}\""))?),
            (1, 1),
            "{name}"
        );
    }
    Ok(())
}

/// What comes for a process when it has ended is wanted too. Its name has more than 15 characters.
fn process_that_has_ended(lab: &Lab) -> Result<()> {
    let _server = ask::start(lab.internet(["python3", "-c", LATE, SERVER_ADDRESS])?)?;
    let client = "import socket, sys; socket.create_connection((sys.argv[1], 7000))";
    let script = r#"
        ln -s "$(command -v python3)" a-client-with-a-long-name
        ./a-client-with-a-long-name -c "$1" "$3"
        python3 -c "$2" udp "$3" 7 20"#;
    let words = ["sh", "-c", script, "sh", client, ask::ask("udp", "", "")[2], SERVER_ADDRESS];
    let done = run(lab, &["--process", "a-client-with-a-long-name"], &words)?;
    assert!(done.text().contains("closed"), "{}", done.text());
    let trace = done.trace_at("x.pcapng");
    // Its own end of the connection, the other one, and the last acknowledgement.
    assert_eq!((trace.ends()?.len(), trace.count_of("!tcp")?), (2, 0));
    assert!(owners(&done, "tcp")?.iter().all(|owner| owner.ends_with(" a-client-with-a")));
    Ok(())
}

fn wrong_process(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    for (name, reason) in [("", "the name of a process"), ("/usr/bin/curl", "such as curl")] {
        let done = lab.nsntrace(["--process", name, "true"])?.run()?;
        assert!(done.complaint()?.contains(reason), "{}", done.stderr);
    }
    // Nobody has it: nothing is captured.
    let script = r#"busybox ping -c 1 "$1" >/dev/null"#;
    let done = run(lab, &["--process", "no-such-name"], &["sh", "-c", script, "sh", SERVER_ADDRESS])?;
    assert_eq!(done.captured()?, 0);
    lab.assert_clean(&before)
}
