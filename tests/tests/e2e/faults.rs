//! Whatever dies, goes away or is full: the program gets what the network gives, and nothing is left behind.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use nsntrace_tests::{HOST_DEVICE, Lab, Running, SERVER_ADDRESS, SOON, Snapshot, Victim, Web, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    tracer_is_killed,
    guardian_is_killed,
    both_are_killed,
    one_is_killed_after_the_other,
    two_sweeps_at_once,
    record_is_cut_short,
    run_folder_is_full,
    uplink_goes_away,
    only_uplink_goes_away,
    ruleset_is_flushed,
    iptables_are_flushed,
    resolver_is_restarted,
];

/// So many traces at the same time, and so many times in each phase: twenty moments.
const AT_ONCE: u64 = 4;
const ROUNDS: u32 = 5;

/// How long a trace goes on that is killed in the middle of it.
const MIDDLE: Duration = Duration::from_millis(100);

/// A part of a run's life.
#[derive(Clone, Copy, Debug)]
enum Phase {
    SetUp,
    Trace,
    TearDown,
}

/// How long set-up and tear-down take here and now, among as many others.
#[derive(Clone, Copy)]
struct Spans {
    set_up: Duration,
    tear_down: Duration,
}

/// Kills at random moments of each phase, the same ones each time as far as the machine lets them be.
fn kill_at_random_moments(victim: Victim, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let lab = &Lab::new()?;
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let spans = at_once(0..AT_ONCE, |_| measure(lab, &web))?;
    let longest = |span: fn(&Spans) -> Duration| spans.iter().map(span).max().unwrap_or_default();
    let spans = Spans { set_up: longest(|spans| spans.set_up), tear_down: longest(|spans| spans.tear_down) };
    for phase in [Phase::SetUp, Phase::Trace, Phase::TearDown] {
        for _ in 0..ROUNDS {
            let moments: Vec<_> = (0..AT_ONCE).map(|_| random.f64()).collect();
            at_once(moments, |moment| kill_one(lab, &web, victim, phase, spans, moment))?;
            if matches!(victim, Victim::Both | Victim::OneAfterTheOther) {
                lab.nsntrace(["true"])?.run()?.exited(0)?;
            }
            // The guardians have their turn one after the other.
            lab.assert_clean_within(SOON, &before).with_context(|| format!("{victim:?} in {phase:?}"))?;
        }
    }
    Ok(())
}

/// Does it for each at the same time.
fn at_once<T: Send, U: Send>(
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> Result<U> + Sync,
) -> Result<Vec<U>> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<U>>| {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        };
        threads.into_iter().map(join).collect()
    })
}

/// A run whose program talks until it is ended.
fn talking(lab: &Lab, web: &Web) -> Result<Running> {
    let script = r#"echo ready; curl -s -o /dev/null "$1"; busybox ping "$0" > /dev/null; exit 1"#;
    lab.nsntrace(["-q", "sh", "-c", script, SERVER_ADDRESS, &web.url])?.spawn()
}

fn measure(lab: &Lab, web: &Web) -> Result<Spans> {
    let began = Instant::now();
    let mut run = talking(lab, web)?;
    run.says("ready")?;
    let set_up = began.elapsed();
    let began = Instant::now();
    end(run)?;
    Ok(Spans { set_up, tear_down: began.elapsed() })
}

/// Ends a run by TERM, and nothing else does.
fn end(run: Running) -> Result<()> {
    run.signal(Signal::SIGTERM)?;
    run.wait()?.exited(128 + Signal::SIGTERM as i32).map(drop)
}

/// `moment` is a part of the phase. A tracer whose guardian is killed goes on as if nothing were.
fn kill_one(lab: &Lab, web: &Web, victim: Victim, phase: Phase, spans: Spans, moment: f64) -> Result<()> {
    let mut run = talking(lab, web)?;
    if !matches!(phase, Phase::SetUp) {
        run.says("ready")?;
    }
    let span = match phase {
        Phase::SetUp => spans.set_up,
        Phase::Trace => MIDDLE,
        Phase::TearDown => {
            run.signal(Signal::SIGTERM)?;
            spans.tear_down
        }
    };
    // Not a wait for something: the moment of the kill is what is varied.
    thread::sleep(span.mul_f64(moment));
    victim.kill(lab, &run)?;
    match (victim, phase) {
        (Victim::Guardian, Phase::TearDown) => {
            run.wait()?.exited(128 + Signal::SIGTERM as i32)?;
        }
        (Victim::Guardian, _) => {
            run.says("ready")?;
            end(run)?;
        }
        _ => {
            run.wait()?;
        }
    }
    Ok(())
}

fn tracer_is_killed(_: &Lab) -> Result<()> {
    kill_at_random_moments(Victim::Tracer, 1)
}

fn guardian_is_killed(_: &Lab) -> Result<()> {
    kill_at_random_moments(Victim::Guardian, 2)
}

fn both_are_killed(_: &Lab) -> Result<()> {
    kill_at_random_moments(Victim::Both, 3)
}

fn one_is_killed_after_the_other(_: &Lab) -> Result<()> {
    kill_at_random_moments(Victim::OneAfterTheOther, 4)
}

/// What a few dead runs have left is undone once, by whoever comes first, and guardians may be among them.
fn two_sweeps_at_once(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    for victim in [Victim::Both, Victim::Tracer] {
        let mut dead = (0..4).map(|_| talking(lab, &web)).collect::<Result<Vec<_>>>()?;
        for run in &mut dead {
            run.says("ready")?;
        }
        for run in dead {
            victim.kill(lab, &run)?;
            run.wait()?;
        }
        let said = at_once(0..3, |_| Ok(lab.nsntrace(["-q", "true"])?.run()?.exited(0)?.stderr))?;
        let said = said.concat();
        assert!(said.lines().all(|line| line.contains("waiting for another run")), "{said}");
        lab.assert_clean(&before)?;
    }
    Ok(())
}

/// A limit of file sizes lets the record end anywhere, in the middle of a line too: that change is not made, and what
/// was made is undone.
fn record_is_cut_short(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let before = lab.snapshot()?;
    let mut refused = 0;
    for limit in (0..1600).step_by(97) {
        let starter = ["prlimit".to_owned(), format!("--fsize={limit}")];
        let done = lab.nsntrace_by(starter, ["-q", "-o", "-", "true"])?.run()?;
        refused += u32::from(!done.status.success());
        let left = lab.host(["sh", "-c", "ls -A /run/nsntrace | grep -v lock"])?.run()?.text();
        assert_eq!(left, "", "with {limit} bytes: {}", done.stderr);
        lab.assert_clean(&before).with_context(|| format!("with {limit} bytes: {}", done.stderr))?;
    }
    assert!(refused > 0, "the limit is never reached");
    Ok(())
}

fn run_folder_is_full(lab: &Lab) -> Result<()> {
    let fill =
        "busybox mount -t tmpfs -o mode=700,size=64k tmpfs /run/nsntrace; cat /dev/zero > /run/nsntrace/lock";
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    let before = lab.snapshot()?;
    lab.host(["sh", "-c", fill])?.run()?;
    let done = lab.nsntrace(["touch", "ran"])?.run()?;
    let line = done.complaint()?;
    assert!(line.contains("/run/nsntrace") && line.contains("No space left"), "{line}");
    assert!(!done.dir.join("ran").exists());
    lab.host(["busybox", "umount", "/run/nsntrace"])?.output()?;
    lab.assert_clean(&before)
}

/// Downloads again and again until it is told to stop; then exits with 9, whatever the network gave.
const DOWNLOADS: &str =
    r#"until [ -e stop ]; do curl -s -m 1 -o page "$0"; echo got $?; sleep 0.05; done; exit 9"#;

/// A run during which a script changes the host. The program goes on, and so does its end.
fn changed_during(lab: &Lab, options: &[&str], before: &Snapshot, script: &str) -> Result<()> {
    let web = lab.web()?;
    let mut run = lab.nsntrace([options, &["sh", "-c", DOWNLOADS, &web.url]].concat())?.spawn()?;
    run.says("got 0")?;
    lab.sh(script)?;
    let so_far = run.stdout()?.lines().count();
    until("another download, or its failure", SOON, || {
        Ok((run.stdout()?.lines().count() > so_far + 1).then_some(()))
    })?;
    fs::write(run.dir().join("stop"), "")?;
    let done = run.wait()?.exited(9)?;
    assert_eq!(done.captured()?, done.trace().count()?);
    assert!(done.trace().count_of("http.request")? > 0);
    lab.assert_clean(before).with_context(|| done.stderr.clone())
}

/// The one of `-d`, where the host has another.
fn uplink_goes_away(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    lab.second_cable()?;
    changed_during(lab, &["-d", "eth2"], &before, "ip link del eth2")
}

/// And with it the host's only route.
fn only_uplink_goes_away(lab: &Lab) -> Result<()> {
    lab.host(["ip", "link", "del", HOST_DEVICE])?.output()?;
    let before = lab.snapshot()?;
    lab.second_cable()?;
    changed_during(lab, &[], &before, "ip link del eth2")
}

fn ruleset_is_flushed(lab: &Lab) -> Result<()> {
    changed_during(lab, &[], &lab.snapshot()?, "nft flush ruleset")
}

fn iptables_are_flushed(lab: &Lab) -> Result<()> {
    let flush = "iptables -t filter -F; iptables -t nat -F; iptables -t filter -X; iptables -t nat -X";
    changed_during(lab, &[], &lab.snapshot()?, flush)
}

/// Asks for a name again and again until it is told to stop.
const QUESTIONS: &str = r#"
until [ -e stop ]; do
    case $(dig +short +tries=1 +time=1 www.example.test) in "$0") echo found;; *) echo none;; esac
    sleep 0.05
done
exit 9
"#;

/// Waits until a question has this answer that comes after what was answered so far.
fn next_is(run: &Running, answer: &str) -> Result<()> {
    let so_far = run.stdout()?.len();
    until(&format!("{answer:?} in answer to a question"), SOON, || {
        Ok(run.stdout()?[so_far..].lines().any(|line| line == answer).then_some(()))
    })
}

fn resolver_is_restarted(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    lab.sh("echo nameserver 127.0.0.53 > /etc/resolv.conf")?;
    let resolver = || {
        let record = format!("--host-record=www.example.test,{SERVER_ADDRESS}");
        lab.host_name_server("127.0.0.53", &["--bind-interfaces", "--listen-address=127.0.0.53", &record])
    };
    let first = resolver()?;
    let run = lab.nsntrace(["sh", "-c", QUESTIONS, SERVER_ADDRESS])?.spawn()?;
    next_is(&run, "found")?;
    drop(first);
    next_is(&run, "none")?;
    let _second = resolver()?;
    next_is(&run, "found")?;
    fs::write(run.dir().join("stop"), "")?;
    run.wait()?.exited(9)?;
    lab.sh("echo nameserver 203.0.113.7 > /etc/resolv.conf")?;
    lab.assert_clean(&before)
}
