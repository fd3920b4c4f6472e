//! The story of a trace of what already runs in a cgroup. Nothing in the host is changed for it.

use std::{path::Path, pin::pin};

use nix::{net::if_::if_indextoname, sys::signal::Signal};
use nsntrace_ebpf::linktype;
use tokio::time::{MissedTickBehavior, interval};

use super::{Audience, COUNT_EVERY, Counted, done, event_loop, insisting, pass_on, talk, tell, until};
use crate::{
    capabilities,
    capture::{Hook, KernelLog, Loaded, Settings, drain::Drain},
    cgroup::{self, Removal, Tree},
    check::{self, Present},
    config::{Config, Running},
    error::{Context, Error, Result},
    limits::Limits,
    output::{encoder::Encoder, invoker::Invoker, section::Section, series::Series, writer::Writer},
    own_thread::Ongoing,
    ownership::processes::Processes,
    recording::Recording,
    signals::{SignalStream, Signals, Stoppable, hold_reports, keep_children},
    words::{Voice, plain, say},
};

/// Traces what is in a cgroup until somebody or something asks for the end, or the cgroup goes away. Returns the exit status,
/// for there is no program's: 1 where not all that was wanted could be written.
///
/// # Errors
/// Where the trace could not be made.
pub fn running(config: &Config, running: &Running) -> Result<u8> {
    hold_reports()?;
    keep_children()?;
    let present = check::running(config, running)?;
    Limits::take_over()?;
    let files = Series::open(&config.outfile, config.rotation, Invoker::from_env())?;
    let signals = Signals::take_over()?;
    let settings = Settings::of(config, Hook::Cgroup, present.filter.as_ref());
    let loading = Ongoing::start(move || Loaded::load(&settings)).context("start", "a thread")?;
    let loaded = done(loading, &signals)?;
    let (status, summary) = event_loop()?.block_on(record(config, present, files, signals, loaded))?;
    tell(config, summary);
    Ok(status)
}

/// Attaches the capture, and follows it to its end.
async fn record(
    config: &Config,
    mut present: Present,
    files: Series,
    signals: Signals,
    loaded: Loaded,
) -> Result<(u8, Option<Counted>)> {
    let voice = Voice::new(config.words);
    let audience = match files.file().is_stdout() {
        _ if config.as_extcap => Audience::of_extcap()?,
        true => Audience::of_stdout()?,
        false => Audience::default(),
    };
    let encoder = Encoder::new(config.format, section(config, &present.cgroup));
    let removal = Removal::watch(&present.cgroup, &cgroup::mount()?)?;
    let (capture, mut packets, mut log) = loaded.attach_to_cgroup(&present.cgroup)?;
    let writer = Writer::new(files, encoder)
        .with_talk(talk(config))
        .with_processes(Processes::default(), packets.take_watch());
    if let Some(signal) = signals.pending_end() {
        return Err(Error::Interrupted(signal as i32));
    }
    packets.begin();
    voice.starting_cgroup(&present.cgroup);
    let drain = Drain::start(packets, writer, config.count.map(u64::from))?;
    capabilities::keep_only(capabilities::TRACER_OF_CGROUP)?;
    let mut recording = Recording::new(capture, drain, config.ring_bytes, voice);
    let signals = signals.stream()?;

    let stoppable = Stoppable::begin()?;
    let followed =
        follow(config, &mut present, &mut recording, removal, &signals, &audience, log.as_mut()).await;
    drop(stoppable);
    tell_of_strangers(&mut present, voice);
    recording.finish_unless(insisting(config, signals.asked_to_end())).await?;
    followed.map(|()| (recording.is_broken().into(), recording.into_summary()))
}

/// Until the end: somebody asks for it, the time is over, enough is written or no more can be, or the cgroup has gone.
async fn follow(
    config: &Config,
    present: &mut Present,
    recording: &mut Recording,
    removal: Removal,
    signals: &SignalStream,
    audience: &Audience,
    log: Option<&mut KernelLog>,
) -> Result<()> {
    let mut ticks = interval(COUNT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let voice = Voice::new(config.words);
    let (counts, watches) = (voice.counts(), present.tree.is_some());
    let mut timer = pin!(until(config.duration));
    let mut removed = pin!(removal.wait());
    let mut alone = pin!(audience.gone());
    let mut messages = pin!(pass_on(log));
    loop {
        tokio::select! {
            message = signals.next() => match message.signal {
                Signal::SIGUSR1 => recording.report(),
                _ if message.asks_for_end() => return Ok(()),
                _ => {}
            },
            ended = recording.ended() => return ended,
            () = &mut timer => return Ok(()),
            () = &mut alone => return Ok(()),
            removed = &mut removed => {
                say!("nsntrace: cgroup '{}' has gone, and the trace ends there.", plain(&present.cgroup.display().to_string()));
                return removed;
            }
            _ = ticks.tick(), if counts || watches => {
                if counts {
                    recording.count();
                }
                tell_of_strangers(present, voice);
            }
            () = &mut messages => {}
        }
    }
}

/// The kernel tells nobody who comes into a cgroup, so it is looked at from time to time.
fn tell_of_strangers(present: &mut Present, voice: Voice) {
    for name in present.tree.as_mut().map(Tree::strangers).unwrap_or_default() {
        voice.stranger(&name);
    }
}

/// What a trace says of where its packets come from: each interface is described when its first packet comes. Numbers
/// of interfaces mean something here only if the cgroup is in this network namespace.
fn section(config: &Config, cgroup: &Path) -> Section {
    let is_here = cgroup::shares_network(cgroup);
    Section {
        snaplen: config.snaplen,
        filter: config.filter.clone(),
        link_type: linktype::RAW,
        interfaces: Vec::new(),
        name_of: if is_here { name } else { |_| None },
    }
}

fn name(index: u32) -> Option<String> {
    if_indextoname(index).ok()?.into_string().ok()
}
