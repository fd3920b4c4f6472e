//! From the kernel's hook to the trace file: load, attach, drain, count.

mod batch;
mod begun;
mod clock;
pub mod drain;
mod filtered;
mod hook;
mod kernel_log;
mod lanes;
mod loader;
mod mapping;
mod owners;
mod places;
mod processors;
mod programs;
mod realtime;
mod ring;
mod rings;
mod settings;
mod tcx;
mod waiting;
mod watch;

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
};

use aya::{
    Ebpf, include_bytes_aligned,
    maps::{Map, MapData},
    util::nr_cpus,
};
use nsntrace_ebpf::{CHUNK, Counters, names};

pub use hook::Hook;
pub use kernel_log::KernelLog;
pub use places::Places;
pub use settings::Settings;
pub use watch::Watch;

use crate::{
    error::{Context, Error, Result},
    namespace::netns::Netns,
    ownership::Owners,
    words::{plain, say},
};
use clock::boot_now;
use lanes::Lanes;
use owners::Knowledge;
use places::Place;
use processors::Processors;
use programs::Programs;
use rings::Rings;

/// The kernel side; `cargo xtask build-ebpf` makes it.
static OBJECT: &[u8] = include_bytes_aligned!("../bpf/nsntrace.bpf.o");

/// The same where packets have owners.
static OWNER_OBJECT: &[u8] = include_bytes_aligned!("../bpf/owner.bpf.o");

/// A direction, seen from who is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What comes in.
    In,
    /// What goes out.
    Out,
}

/// The kernel side, loaded and not attached yet.
pub struct Loaded {
    programs: Programs,
    /// What each processor has counted.
    books: MapData,
    rings: Rings,
    lanes: Lanes,
    processors: Arc<Processors>,
    log: Option<KernelLog>,
    watch: Option<Watch>,
    owners: Option<Owners>,
}

/// Where the packets of a capture come out.
pub struct Packets {
    rings: Rings,
    lanes: Lanes,
    processors: Arc<Processors>,
    /// What happens to their processes, where that is told.
    watch: Option<Watch>,
    /// None passed before, in nanoseconds of `CLOCK_BOOTTIME`.
    since: u64,
}

/// A capture on interfaces or on a cgroup. Dropped, it is detached.
pub struct Capture {
    /// That of the interfaces.
    netns: Option<Netns>,
    programs: Option<Programs>,
    interfaces: Vec<Place>,
    processors: Arc<Processors>,
}

impl Loaded {
    /// Brings programs and maps into the kernel. Where it does not take those that find the owners of packets, one line says
    /// so, and the others go in, unless only packets of some owners are wanted.
    ///
    /// # Errors
    /// Where the kernel refuses one of them; the verifier's words are told in one line.
    pub fn load(settings: &Settings) -> Result<Self> {
        let mut loaded = Self::load_captures(settings)?;
        if let Some(filter) = &settings.filter {
            loaded.programs.filter(filter, &loaded.books)?;
        }
        Ok(loaded)
    }

    fn load_captures(settings: &Settings) -> Result<Self> {
        let Some(owners) = &settings.owners else { return Self::load_with(settings, None) };
        let knowledge = Knowledge::find(owners);
        match knowledge.and_then(|knowledge| Self::load_with(settings, Some((owners, knowledge)))) {
            Err(error) => {
                let loaded = Self::load_with(settings, None)?;
                does_without(owners, &error).map(|()| loaded)
            }
            Ok(loaded) => Ok(loaded),
        }
    }

    fn load_with(settings: &Settings, owners: Option<(&Owners, Knowledge)>) -> Result<Self> {
        let level = if settings.messages { aya_log::Level::Trace as u8 } else { 0 };
        let cpus = nr_cpus().map_err(|(_, error)| error).context("count", "the processors")?;
        let count = |of: usize| u32::try_from(of).context("count", "the processors");
        let chunks = lanes::chunks(cpus);
        let takes_ahead = u32::from(lanes::are_taken_ahead());
        let is_realtime = u32::from(realtime::is_here());
        let much = ring::much(settings.ring_bytes.into());
        let mut loader = loader::without_types();
        loader
            .override_global(aya_log::LEVEL, &level, true)
            .override_global(names::TAKES_AHEAD, &takes_ahead, true)
            .override_global(names::IS_REALTIME, &is_realtime, true)
            .override_global(names::MUCH, &much, true)
            .map_max_entries(names::RING, settings.ring_bytes)
            .map_max_entries(names::NEAR, rings::near(settings.ring_bytes))
            .map_max_entries(names::PROCESSORS, count(cpus)?)
            .map_max_entries(names::LANES, count(cpus * chunks)?);
        let object = if owners.is_some() { OWNER_OBJECT } else { OBJECT };
        if let Some((_, knowledge)) = &owners {
            knowledge.tell(&mut loader);
        }
        let ebpf = loader.load(object).context("load", "the capture program")?;
        // Before maps are taken out of it: until then a program knows them by their descriptors.
        let mut programs = Programs::load(ebpf, settings.hook)?;
        let ebpf = programs.object();
        let watch = owners.as_ref().map_or(Ok(None), |(owners, _)| owners::load(ebpf, owners))?;
        let mut hold =
            |name| take(ebpf, name)?.fd().as_fd().try_clone_to_owned().context("hold", "a ring buffer");
        let rings = Rings::map(hold(names::NEAR)?, hold(names::RING)?, settings.ring_bytes)?;
        let books = take(ebpf, names::PROCESSORS)?;
        let processors =
            Arc::new(Processors::map(books.fd().as_fd(), cpus, count(chunks * CHUNK)?, settings.snaplen)?);
        let lanes = take(ebpf, names::LANES)?;
        let lanes = Lanes::map(lanes.fd().as_fd(), Arc::clone(&processors))?;
        let log = settings.messages.then(|| KernelLog::new(ebpf)).transpose()?;
        let owners = owners.map(|(owners, _)| owners.clone());
        Ok(Self { programs, books, rings, lanes, processors, log, watch, owners })
    }

    /// Puts the programs into places at interfaces. Owners of packets are in `cgroup`, or come from there. Nothing is captured before
    /// [`Packets::begin`].
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn attach(mut self, places: Places, cgroup: &Path) -> Result<(Capture, Packets, Option<KernelLog>)> {
        let Places { netns, interfaces } = places;
        self.follow(cgroup)?;
        let mut parts = self.parts(Some(netns));
        parts.0.attach(interfaces)?;
        Ok(parts)
    }

    /// Attaches to a cgroup, beside what is attached there, for packets of its sockets, and of those of the cgroups below it.
    /// Nothing is captured before [`Packets::begin`].
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn attach_to_cgroup(mut self, path: &Path) -> Result<(Capture, Packets, Option<KernelLog>)> {
        self.follow(path)?;
        if let Some(owners) = &self.owners {
            let earlier = owners::adopt(self.programs.object(), path, owners)?;
            if let Some(watch) = &mut self.watch {
                watch.begin_with(earlier);
            }
        }
        let mut parts = self.parts(None);
        parts.0.attach_to_cgroup(path)?;
        Ok(parts)
    }

    /// Has the owners of packets found that are in this cgroup, if anybody asks for them.
    fn follow(&mut self, cgroup: &Path) -> Result<()> {
        let Some(owners) = &self.owners else { return Ok(()) };
        if let Err(error) = owners::attach(self.programs.object(), cgroup) {
            does_without(owners, &error)?;
            (self.owners, self.watch) = (None, None);
        }
        Ok(())
    }

    fn parts(self, netns: Option<Netns>) -> (Capture, Packets, Option<KernelLog>) {
        let Self { programs, rings, lanes, processors, log, watch, .. } = self;
        let capture = Capture {
            netns,
            programs: Some(programs),
            interfaces: Vec::new(),
            processors: Arc::clone(&processors),
        };
        (capture, Packets { rings, lanes, processors, watch, since: boot_now() }, log)
    }
}

/// Says why packets have no owners, and fails where only those of some are wanted.
fn does_without(owners: &Owners, error: &Error) -> Result<()> {
    if owners.only.is_empty() {
        say!("nsntrace: the trace does not tell whose packets are: {}", plain(&error.to_string()));
        Ok(())
    } else {
        Err(Error::told(format!("--process: {error}")))
    }
}

impl Packets {
    /// Begins with the packets that pass from here on: none before is captured or counted.
    pub fn begin(&mut self) {
        self.since = boot_now();
        self.processors.begin();
    }

    /// What happens to their processes, where that is told.
    pub fn take_watch(&mut self) -> Option<Watch> {
        self.watch.take()
    }
}

impl Capture {
    fn attach(&mut self, interfaces: Vec<Place>) -> Result<()> {
        if let (Some(netns), Some(programs)) = (&self.netns, &mut self.programs) {
            netns.run(|| interfaces.iter().try_for_each(|place| programs.attach(place)))?;
        }
        self.interfaces = interfaces;
        Ok(())
    }

    /// What holds the capture to an interface. With that it goes too. Whoever closes the last one waits for whoever is changing
    /// the host's links.
    pub fn links(&self, interface: &str) -> Vec<BorrowedFd<'_>> {
        let there = self.interfaces.iter().filter(|place| place.interface == interface);
        there.flat_map(|place| &place.links).map(AsFd::as_fd).collect()
    }

    fn attach_to_cgroup(&mut self, path: &Path) -> Result<()> {
        self.programs.as_mut().map_or(Ok(()), |programs| programs.attach_to_cgroup(path))
    }

    /// Packets that pass from here on are none of the trace any more.
    pub fn close(&self) {
        self.processors.end();
    }

    /// Ends the capture. When it returns, no program puts anything into a ring any more; where others hold the links too, see
    /// [`Capture::links`], because it was [closed](Capture::close) before, and what was on its way then takes microseconds.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn detach(&mut self) -> Result<()> {
        let Some(programs) = self.programs.take() else { return Ok(()) };
        // One program goes after the other, and some take their time.
        self.close();
        let Some(netns) = &self.netns else {
            drop(programs);
            wait_for_programs();
            return Ok(());
        };
        // Before there were links, aya detaches by the interface's number, and that means something in one namespace.
        netns.run(|| {
            drop(programs);
            Ok(())
        })?;
        self.interfaces.clear();
        if !tcx::is_there() {
            wait_for_programs();
        }
        Ok(())
    }

    /// What the kernel side has counted.
    pub fn counters(&self) -> Counters {
        self.processors.counters()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.detach();
    }
}

/// The end of a link at an interface waits for the programs that are just running; that of a filter does not, nor that
/// of a link at a cgroup. This returns when each processor has passed a point at which it runs none; where there is but one
/// processor, or one that ticks only when it must, at once.
fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: it takes plain numbers. Where the kernel does not have it, nothing is waited for.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<MapData> {
    match ebpf.take_map(name) {
        Some(Map::RingBuf(map) | Map::Array(map)) => Ok(map),
        _ => Err(missing(name)),
    }
}

fn missing(name: &str) -> Error {
    Error::told(format!("the eBPF object has no {name}: build it with 'cargo xtask build-ebpf'"))
}
