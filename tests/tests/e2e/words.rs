//! What it says, word for word, and where.

use anyhow::Result;
use nix::sys::signal::Signal;
use nsntrace_tests::{Lab, SOON, Terminal, nsntrace_binary, number_before, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    banner,
    banner_names_the_program,
    not_root,
    help_and_version_need_no_root,
    wrong_arguments,
    counts_on_demand,
    running_count_on_a_terminal,
    no_running_count_in_a_file,
];

fn banner(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let done = lab.nsntrace(["curl", "-s", "-o", "page", &web.url])?.run()?.exited(0)?;
    assert_eq!(done.text(), "", "stdout is the program's");
    let count = format!("Finished capturing {} packets.", done.trace().count()?);
    let expected = [
        "Starting network trace of 'curl' on interface eth1.",
        "Your IP address in this trace is 172.16.42.255.",
        "Use ctrl-c to end at any time.",
        "",
        &count,
    ];
    assert_eq!(done.lines(), expected);
    Ok(())
}

fn banner_names_the_program(lab: &Lab) -> Result<()> {
    let program = r"echo words of the program >&2";
    let done = lab.nsntrace(["-d", "eth1", "/bin/sh", "-c", program])?.run()?.exited(0)?;
    let lines = done.lines();
    assert!(lines[0].starts_with("Starting network trace of '"), "{}", lines[0]);
    assert!(lines[0].ends_with("sh' on interface eth1."), "{}", lines[0]);
    assert_eq!(lines[3..], ["", "words of the program", "Finished capturing 0 packets."]);
    Ok(())
}

/// The binary where every user may run it, and what is put in front of it to be such a user.
fn as_nobody(lab: &Lab) -> Result<[String; 6]> {
    let copy = lab.dir().join("nsntrace");
    let (binary, copy) = (nsntrace_binary()?.display().to_string(), copy.display().to_string());
    // By another process: while this one holds it open to write, one that it forks meanwhile does too, and nobody may
    // run it.
    lab.host(["install", "-m", "755", &binary, &copy])?.output()?;
    Ok(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", &copy].map(String::from))
}

fn not_root(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let words = as_nobody(lab)?.into_iter().chain(["true".into()]);
    let done = lab.tracer(words)?.run()?;
    let line = done.complaint()?;
    assert!(line.contains("root") && line.contains("sudo"), "{line}");
    lab.assert_clean(&before)
}

fn help_and_version_need_no_root(lab: &Lab) -> Result<()> {
    let as_nobody = as_nobody(lab)?;
    let run = |option: &str| lab.tracer(as_nobody.iter().cloned().chain([option.into()]))?.run()?.exited(0);
    for option in ["-V", "--version"] {
        assert!(run(option)?.text().starts_with("nsntrace "));
    }
    let mut options = vec!["--outfile", "--device", "--user", "--snaplen", "--count", "--duration"];
    options.extend(["--buffer-size", "--quiet", "--verbose", "--help", "--version"]);
    for option in ["-h", "--help"] {
        let done = run(option)?;
        assert_eq!(done.stderr, "");
        for named in &options {
            assert!(done.text().contains(named), "{named} is missing in {option}");
        }
    }
    Ok(())
}

fn wrong_arguments(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let wrong: [&[&str]; 9] = [
        &[],
        &["-q"],
        &["--no-such-option", "true"],
        &["-c", "x", "true"],
        &["-c", "0", "true"],
        &["--duration", "-1", "true"],
        &["--duration", "x", "true"],
        &["-s", "x", "true"],
        &["-o"],
    ];
    for words in wrong {
        let done = lab.nsntrace(words)?.run()?;
        done.complaint().map_err(|error| error.context(format!("nsntrace {words:?}")))?;
        assert!(done.stdout.is_empty(), "{words:?}: {}", done.text());
    }
    lab.assert_clean(&before)
}

fn counts_on_demand(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let program = r#"curl -s -o page "$1"; echo ready; read line; exit 2"#;
    let mut run = lab.nsntrace(["-q", "sh", "-c", program, "sh", &web.url])?.told().spawn()?;
    run.says("ready")?;
    // What was captured is counted when it is written, a moment later: asked until the download is in.
    let mut so_far = 0;
    let mut asked = 0;
    until("a count with the download in it", SOON, || {
        asked += 1;
        run.signal(Signal::SIGUSR1)?;
        let line = until("a line with the counts", SOON, || {
            Ok(run.stderr()?.lines().nth(asked - 1).map(str::to_owned))
        })?;
        assert!(line.contains(" 0 dropped"), "{line}");
        let count = number_before(&line, " packet")?;
        assert!(count >= so_far, "less than {so_far} packets: {line}");
        so_far = count;
        Ok((asked >= 3 && so_far >= 20).then_some(()))
    })?;
    drop(run.stdin_pipe()?);
    let done = run.wait()?.exited(2)?;
    assert!(so_far <= done.trace().count()?, "more packets than the {so_far} of the file");
    Ok(())
}

fn ping_and_wait(count: u32) -> String {
    format!("echo ready; busybox ping -c {count} 203.0.113.7 > /dev/null; read line")
}

fn running_count_on_a_terminal(lab: &Lab) -> Result<()> {
    let mut terminal = lab.nsntrace(["-v", "sh", "-c", &ping_and_wait(1)])?.spawn_on_terminal()?;
    terminal.shows("ready")?;
    // As tcpdump has it: the count is written over the one before. It stays for seconds, until neighbours are asked for
    // again; and an earlier one comes before or after the program's word.
    terminal.shows("\rGot 4")?;
    terminal.types(Terminal::CTRL_C)?;
    terminal.shows("Finished capturing ")?;
    Ok(())
}

fn no_running_count_in_a_file(lab: &Lab) -> Result<()> {
    let done = lab.nsntrace(["-v", "sh", "-c", &ping_and_wait(3)])?.run()?;
    assert!(!done.stderr.contains('\r') && !done.stderr.contains("Got "), "{}", done.stderr);
    Ok(())
}
