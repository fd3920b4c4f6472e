//! From the kernel's hook to the trace file: load, attach, drain, count.

mod batch;
mod clock;
pub mod drain;
mod filtered;
mod kernel_log;
mod mapping;
mod processors;
mod ring;

use std::{os::fd::AsFd, sync::Arc};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Map, MapData},
    programs::{ProgramError, SchedClassifier, TcAttachType, tc},
    util::{KernelVersion, nr_cpus},
};
use nsntrace_ebpf::{Counters, names};

pub use kernel_log::KernelLog;

use crate::{
    error::{Context, Error, Result},
    filter::classic,
    namespace::netns::Netns,
};
use clock::boot_now;
use filtered::{Captures, Filtered};
use processors::Processors;
use ring::Ring;

/// The kernel side; `cargo xtask build-ebpf` makes it.
static OBJECT: &[u8] = include_bytes_aligned!("../bpf/nsntrace.bpf.o");

/// How a capture is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes to keep of a packet.
    pub snaplen: u32,
    /// Size of the ring buffer in bytes, a power of two.
    pub ring_bytes: u32,
    /// Whether messages of the kernel side are wanted. Without them its code for messages is not loaded.
    pub messages: bool,
    /// What is to be captured; without one, everything.
    pub filter: Option<Vec<classic::Instruction>>,
}

/// A direction of an interface.
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    /// What comes in.
    In,
    /// What goes out.
    Out,
}

/// The kernel side, loaded and not attached yet.
pub struct Loaded {
    programs: Programs,
    ring: Ring,
    processors: Arc<Processors>,
    log: Option<KernelLog>,
}

/// What is attached, and what it leads to.
struct Programs {
    ebpf: Ebpf,
    filtered: Option<Filtered>,
}

/// Where the packets of a capture come out.
pub struct Packets {
    ring: Ring,
    processors: Arc<Processors>,
    /// None passed before, in nanoseconds of `CLOCK_BOOTTIME`.
    since: u64,
}

/// A capture on an interface. Dropped, it is detached.
pub struct Capture {
    netns: Netns,
    programs: Option<Programs>,
    processors: Arc<Processors>,
}

impl Loaded {
    /// Brings programs and maps into the kernel.
    ///
    /// # Errors
    /// Where the kernel refuses one of them; the verifier's words are told in one line.
    pub fn load(settings: &Settings) -> Result<Self> {
        let level = if settings.messages { aya_log::Level::Trace as u8 } else { 0 };
        let cpus = nr_cpus().map_err(|(_, error)| error).context("count", "the processors")?;
        // It loads a filter too, which has no globals: that they are there in the object is not asked.
        let mut loader = EbpfLoader::new();
        loader
            .override_global(names::SNAPLEN, &settings.snaplen, false)
            .override_global(aya_log::LEVEL, &level, false)
            .map_max_entries(names::RING, settings.ring_bytes)
            .map_max_entries(names::PROCESSORS, u32::try_from(cpus).context("count", "the processors")?);
        let mut ebpf = loader.load(OBJECT).context("load", "the capture program")?;
        for name in [names::TC_INGRESS, names::TC_EGRESS] {
            let loaded = program(&mut ebpf, name)?.load().map_err(refusal);
            loaded.context("load", format_args!("the capture program {name}"))?;
        }
        let ring = take(&mut ebpf, names::RING)?.fd().as_fd().try_clone_to_owned();
        let ring = Ring::map(ring.context("hold", "the ring buffer")?, settings.ring_bytes as usize)?;
        let books = take(&mut ebpf, names::PROCESSORS)?;
        let processors = Arc::new(Processors::map(books.fd().as_fd(), cpus)?);
        let log = settings.messages.then(|| KernelLog::new(&mut ebpf)).transpose()?;
        let filtered = settings
            .filter
            .as_deref()
            .map(|filter| filtered(&mut loader, filter, &mut ebpf, &books))
            .transpose()?;
        Ok(Self { programs: Programs { ebpf, filtered }, ring, processors, log })
    }

    /// Attaches to interfaces in a namespace, to these directions of each. Packets go into the ring from here on.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn attach(
        self,
        netns: Netns,
        interfaces: &[(&str, &[Direction])],
    ) -> Result<(Capture, Packets, Option<KernelLog>)> {
        let Self { programs, ring, processors, log } = self;
        let mut capture = Capture { netns, programs: Some(programs), processors: Arc::clone(&processors) };
        let since = boot_now();
        for (interface, directions) in interfaces {
            capture.attach(interface, directions)?;
        }
        Ok((capture, Packets { ring, processors, since }, log))
    }
}

impl Capture {
    fn attach(&mut self, interface: &str, directions: &[Direction]) -> Result<()> {
        let Some(programs) = self.programs.as_mut() else { return Ok(()) };
        let ebpf = programs.filtered.as_mut().map_or(&mut programs.ebpf, |filtered| &mut filtered.ebpf);
        self.netns.run(|| {
            if !has_links() {
                tc::qdisc_add_clsact(interface).context("add a clsact qdisc to", interface)?;
            }
            for direction in directions {
                let (name, hook) = match direction {
                    Direction::In => (names::TC_INGRESS, TcAttachType::Ingress),
                    Direction::Out => (names::TC_EGRESS, TcAttachType::Egress),
                };
                program(ebpf, name)?.attach(interface, hook).context("attach the capture to", interface)?;
            }
            Ok(())
        })
    }

    /// Ends the capture. When it returns, no program puts anything into the ring any more.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn detach(&mut self) -> Result<()> {
        let Some(programs) = self.programs.take() else { return Ok(()) };
        // Before there were links, aya detaches by the interface's number, and that means something in one namespace.
        self.netns.run(|| {
            drop(programs);
            Ok(())
        })?;
        if !has_links() {
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

/// Since 6.6 programs are attached by links of their own; before, to a qdisc that must be there.
fn has_links() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// The end of a link waits for the programs that are just running, the end of a filter does not. This returns when
/// each processor has passed a point at which it runs none.
fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: it takes plain numbers. Where the kernel does not have it, nothing is waited for.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().context("use", format_args!("the capture program {name}"))
}

fn filtered(
    loader: &mut EbpfLoader<'_>,
    filter: &[classic::Instruction],
    ebpf: &mut Ebpf,
    books: &MapData,
) -> Result<Filtered> {
    let fd = |name| {
        let program: &SchedClassifier =
            ebpf.program(name).ok_or_else(|| missing(name))?.try_into().context("use", name)?;
        program.fd().context("use", name)
    };
    let captures = [
        Captures { name: names::TC_INGRESS, fd: fd(names::TC_INGRESS)?, outgoing: false },
        Captures { name: names::TC_EGRESS, fd: fd(names::TC_EGRESS)?, outgoing: true },
    ];
    Filtered::load(loader, filter, &captures, books.fd().as_fd())
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<MapData> {
    match ebpf.take_map(name) {
        Some(Map::RingBuf(map) | Map::Array(map)) => Ok(map),
        _ => Err(missing(name)),
    }
}

/// In one line. The verifier's verdict is the last that it says of the program itself, behind its whole way there.
fn refusal(error: ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return error.to_string() };
    let log = verifier_log.to_string();
    let is_verdict = |line: &&str| {
        let figures = ["processed ", "verification time ", "stack depth "];
        !line.is_empty() && !figures.iter().any(|figure| line.starts_with(figure))
    };
    match log.lines().rev().map(str::trim).find(is_verdict) {
        Some(verdict) => format!("{io_error}; the verifier says: {verdict}"),
        None => io_error.to_string(),
    }
}

fn missing(name: &str) -> Error {
    Error::told(format!("the eBPF object has no {name}: build it with 'cargo xtask build-ebpf'"))
}

#[cfg(test)]
mod tests {
    use aya_obj::VerifierLog;

    use super::*;

    #[test]
    fn a_refusal_is_one_line_with_the_verdict() {
        let log = "0: R1=ctx()\n1: (95) exit\nR0 !read_ok\nverification time 29 usec\nstack depth 0\n\
                   processed 1 insns (limit 1000000)\n\n";
        let error = ProgramError::LoadError {
            io_error: std::io::Error::from_raw_os_error(libc::EACCES),
            verifier_log: VerifierLog::new(log.to_owned()),
        };
        assert_eq!(refusal(error), "Permission denied (os error 13); the verifier says: R0 !read_ok");
    }
}
