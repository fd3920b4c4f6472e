//! The story of a trace: here that of a program, and in [`running`] that of what already runs.

mod audience;
mod running;

pub use running::running;

use std::{
    fs::File,
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    time::Duration,
};

use ipnet::IpNet;
use nix::{net::if_::if_nametoindex, sys::prctl::set_child_subreaper};
use nsntrace_ebpf::{Counters, linktype};
use tokio::{
    runtime::{self, Runtime},
    time::{MissedTickBehavior, interval, sleep},
};

use audience::Audience;

use crate::{
    capabilities,
    capture::{Capture, Direction, Hook, KernelLog, Loaded, Packets, Places, Settings, drain::Drain},
    check::{self, Host},
    config::{Config, Format},
    error::{Context, Error, Result},
    host::{Changes, guardian::Guardian, link::Names},
    join::{Joined, join, settle, upkeep::Upkeep},
    life::{Event, Life, SAME_REQUEST},
    limits::Limits,
    namespace::{covers::Covers, keeper::Keeper, netns::Netns, quiet},
    output::{
        encoder::Encoder,
        invoker::Invoker,
        section::{Interface, Section},
        series::Series,
        trace_file::TraceFile,
        writer::Writer,
    },
    own_thread::Ongoing,
    ownership::processes::Processes,
    recording::Recording,
    signals::{Signals, Stoppable, hold_reports, keep_children},
    talk::{Summary, Talk, report},
    tls_keys::{KeyFile, Keys},
    tracee::{self, Start, Streams},
    tree::Tree,
    words::Voice,
};

/// How often the running count is renewed.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Who talked to whom, and what was counted.
type Counted = (Box<Summary>, Counters);

/// Traces a program from its first packet to the last of its tree. Returns the program's exit status.
///
/// # Errors
/// Where the trace could not be made. The host is then as it was.
pub fn program(config: &Config) -> Result<u8> {
    keep_children()?;
    hold_reports()?;
    let mut host = check::host(config)?;
    let limits = Limits::take_over()?;
    let guardian = Guardian::start()?;
    let files = Series::open(&config.outfile, config.rotation, Invoker::from_env())?;
    let signals = Signals::take_over()?;
    set_child_subreaper(true).context("become", "the parent of orphans")?;

    let netns = Netns::create()?;
    let settings = Settings::of(config, Hook::Interface, host.filter.as_ref());
    let (link, link_is_there) = mpsc::channel();
    let attaching = attaching(settings, netns.try_clone()?, config.loopback, link_is_there)?;
    let (mut changes, joined) = join(config, &host, &netns, guardian, &signals, |names, leaf| {
        // Where nobody listens any more, its error comes below.
        let _ = link.send((names.clone(), leaf.path().to_owned()));
    })?;
    let attached = done(attaching, &signals)?;

    let trace = record(config, &mut host, files, limits, signals, &netns, &mut changes, joined, attached);
    let ended = event_loop()?.block_on(trace);
    changes.undo();
    let (status, summary) = ended?;
    tell(config, summary);
    Ok(status)
}

/// A capture, and what comes out of it.
type Attached = (Capture, Packets, Option<KernelLog>);

/// Loads the capture, and takes its places when the link is there, while the host is being readied: the kernel takes long for
/// both. It may begin then: the link has nothing more to say of itself.
fn attaching(
    settings: Settings,
    netns: Netns,
    loopback: bool,
    link_is_there: Receiver<(Names, PathBuf)>,
) -> Result<Ongoing<Result<Attached>>> {
    let inside = netns.try_clone()?;
    let take_places = move || {
        let (names, cgroup) = link_is_there.recv().context("wait for", "the link")?;
        let mut interfaces = vec![(&names.inner[..], &[Direction::In, Direction::Out][..])];
        // What goes out there comes in there too, and is one packet.
        interfaces.extend(loopback.then_some(("lo", &[Direction::Out][..])));
        Ok((Places::take(inside, &interfaces)?, names, cgroup))
    };
    let attach = move || {
        let places = Ongoing::start(take_places).context("start", "a thread")?;
        let (loaded, places) = (Loaded::load(&settings), places.wait());
        let loaded = loaded?;
        let (places, names, cgroup) = places?;
        let attached = loaded.attach(places, &cgroup)?;
        settle(&netns, &names)?;
        Ok(attached)
    };
    Ongoing::start(attach).context("start", "a thread")
}

/// Releases the program, and follows it and the capture to their end.
#[expect(
    clippy::too_many_arguments,
    reason = "each is used once, and together they are the state of a trace"
)]
async fn record(
    config: &Config,
    host: &mut Host,
    files: Series,
    limits: Limits,
    signals: Signals,
    netns: &Netns,
    changes: &mut Changes,
    joined: Joined,
    (capture, mut packets, mut log): Attached,
) -> Result<(u8, Option<Counted>)> {
    let voice = Voice::new(config.words);
    let section = section(config, netns, &joined)?;
    if let Some(signal) = signals.pending_end() {
        return Err(Error::Interrupted(signal as i32));
    }
    let mut covers = Covers::prepare(joined.lookups.resolv_conf.as_deref())?;
    let key_log = config.tls_keys.then(|| covers.add_key_log(host.account.as_ref())).transpose()?;
    let covers = Arc::new(covers);
    let program = config.program.to_string_lossy().into_owned();
    voice.starting(&program, &joined.interface, joined.subnet.inside);
    packets.begin();
    let pid = tracee::spawn(Start {
        program: &config.program,
        arguments: &config.arguments,
        account: host.account.as_ref(),
        netns,
        covers: &covers,
        door: &joined.leaf.door()?,
        dispositions: signals.dispositions(),
        limits,
        streams: streams(config, files.file())?,
    })?;
    let keeper = Keeper::new(covers, pid);
    let keys = key_log.map(|file| Keys::new(KeyFile::new(file), host.key_log.take()));
    let writer = Writer::new(files, Encoder::new(config.format, section))
        .with_keys(keys)
        .with_talk(talk(config))
        .with_processes(Processes::started_by(std::process::id(), "nsntrace"), packets.take_watch());
    let drain = Drain::start(packets, writer, config.count.map(u64::from))?;
    // Program and thread have begun with what they need.
    capabilities::keep_only(capabilities::TRACER)?;
    let mut recording = Recording::new(capture, drain, config.ring_bytes, voice);
    let tree = Tree::new(joined.leaf.clone(), netns.try_clone()?);
    let mut life = Life::new(program, pid, tree, signals.stream()?, voice)?;
    // Without Wireshark, a program goes on when nobody reads the trace any more.
    let audience = if config.as_extcap { Audience::of_extcap()? } else { Audience::default() };

    let upkeep = Upkeep::new(changes, config, host, &joined);
    let followed = follow(config, &mut life, &mut recording, upkeep, &keeper, &audience, log.as_mut()).await;
    let quiet = quiet::wait(netns);
    // With the link goes what is attached to it, and the kernel waits once for both. The capture is closed before: the link's
    // end may tell that the host is no router any more. For the watch of the covers the kernel waits too.
    let mut held = recording.links(&joined.names.inner);
    held.extend(keeper.watch());
    changes.undo_early(&held, || recording.close());
    recording.finish_unless(insisting(config, life.asked_to_end())).await?;
    quiet.and(followed).map(|status| (status, recording.into_summary()))
}

/// Somebody asks for the end, and it does not come: what was asked before that was near may be heard only now. Wireshark asks
/// for the end however it came about, and more than once.
async fn insisting(config: &Config, asked: impl Future<Output = ()>) {
    if config.as_extcap {
        return std::future::pending().await;
    }
    asked.await;
    sleep(SAME_REQUEST).await;
}

/// Until the program's tree has ended; the capture may end before.
async fn follow(
    config: &Config,
    life: &mut Life,
    recording: &mut Recording,
    mut upkeep: Upkeep<'_>,
    keeper: &Keeper,
    audience: &Audience,
    log: Option<&mut KernelLog>,
) -> Result<u8> {
    let mut ticks = interval(COUNT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let counts = Voice::new(config.words).counts();
    let mut timer = std::pin::pin!(until(config.duration));
    let mut is_timed = config.duration.is_some();
    let mut keeping = std::pin::pin!(keeper.keep());
    let mut alone = std::pin::pin!(audience.gone());
    let mut is_wanted = true;
    let mut messages = std::pin::pin!(pass_on(log));
    let stoppable = Stoppable::begin()?;
    loop {
        tokio::select! {
            event = life.next() => match event? {
                Event::Report => recording.report(),
                Event::Ended(status) => return Ok(status),
            },
            ended = recording.ended() => ended?,
            () = &mut timer, if is_timed => {
                is_timed = false;
                recording.stop()?;
            }
            () = &mut alone, if is_wanted => {
                is_wanted = false;
                life.ask_to_end();
            }
            _ = ticks.tick(), if counts => recording.count(),
            rules = upkeep.changed() => stoppable.except(|| upkeep.mend(rules)),
            () = &mut keeping => {}
            () = &mut messages => {}
        }
    }
}

/// What the program has for input and output beside the trace.
fn streams(config: &Config, trace: &TraceFile) -> Result<Streams> {
    if config.as_extcap {
        let device = File::options().read(true).write(true).open("/dev/null");
        return device.map(Streams::Device).context("open", "/dev/null");
    }
    Ok(if trace.is_stdout() { Streams::StdoutToStderr } else { Streams::Ours })
}

/// Who looks at the packets, if anybody is to: a pcapng has a place for names.
fn talk(config: &Config) -> Option<Talk> {
    let with_summary = config.summary.is_some();
    (with_summary || config.format == Format::Pcapng).then(|| Talk::new(with_summary))
}

/// The last words, if they were wanted and there are some.
fn tell(config: &Config, summary: Option<Counted>) {
    if let (Some(form), Some((summary, counters))) = (config.summary, summary) {
        report::tell(form, &summary, &counters);
    }
}

/// Waits for the capture, or for a signal: the kernel takes long to check a large filter.
fn done<T: Send + 'static>(ongoing: Ongoing<Result<T>>, signals: &Signals) -> Result<T> {
    match signals.end_before(ongoing.as_fd())? {
        Some(signal) => Err(Error::Interrupted(signal as i32)),
        None => ongoing.wait(),
    }
}

fn event_loop() -> Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build().context("start", "an event loop")
}

async fn until(duration: Option<Duration>) {
    match duration {
        Some(duration) => sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn pass_on(log: Option<&mut KernelLog>) {
    if let Some(log) = log {
        log.pass_on().await;
    }
    std::future::pending().await
}

/// What a trace says of where its packets come from.
fn section(config: &Config, netns: &Netns, joined: &Joined) -> Result<Section> {
    let subnets = [Some(joined.subnet), joined.ipv6];
    let addresses =
        subnets.iter().flatten().map(|subnet| IpNet::new_assert(subnet.inside, subnet.prefix_len));
    let mut interfaces = vec![interface(netns, &joined.names.inner, addresses.collect())?];
    if config.loopback {
        interfaces.push(interface(netns, "lo", Vec::new())?);
    }
    Ok(Section {
        snaplen: config.snaplen,
        filter: config.filter.clone(),
        link_type: linktype::EN10MB,
        interfaces,
        name_of: |_| None,
    })
}

fn interface(netns: &Netns, name: &str, addresses: Vec<IpNet>) -> Result<Interface> {
    let find = || if_nametoindex(name).context("find", format_args!("link {name}"));
    Ok(Interface {
        index: netns.run(find)?,
        link_type: linktype::EN10MB,
        addresses,
        name: Some(name.to_owned()),
    })
}
