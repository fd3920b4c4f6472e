//! From the kernel's hook to the trace file: load, attach, drain, count.

mod batch;
mod clock;
pub mod drain;
mod filtered;
mod hook;
mod kernel_log;
mod mapping;
mod processors;
mod ring;

use std::{fs::File, os::fd::AsFd, path::Path, sync::Arc};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{Map, MapData},
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program, ProgramError, SchedClassifier,
        TcAttachType, tc,
    },
    sys::SyscallError,
    util::{KernelVersion, nr_cpus},
};
use nsntrace_ebpf::{Counters, names};

pub use hook::Hook;
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
    /// Where packets are got hold of.
    pub hook: Hook,
    /// Bytes to keep of a packet.
    pub snaplen: u32,
    /// Size of the ring buffer in bytes, a power of two.
    pub ring_bytes: u32,
    /// Whether messages of the kernel side are wanted. Without them its code for messages is not loaded.
    pub messages: bool,
    /// What is to be captured; without one, everything.
    pub filter: Option<Vec<classic::Instruction>>,
}

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
    ring: Ring,
    processors: Arc<Processors>,
    log: Option<KernelLog>,
}

/// What is attached, and what it leads to.
struct Programs {
    hook: Hook,
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

/// A capture on interfaces or on a cgroup. Dropped, it is detached.
pub struct Capture {
    /// That of the interfaces.
    netns: Option<Netns>,
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
        for name in settings.hook.programs() {
            let loaded = hook::load(program(&mut ebpf, name)?).map_err(refusal);
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
            .map(|filter| filtered(&mut loader, filter, settings.hook, &ebpf, &books))
            .transpose()?;
        Ok(Self { programs: Programs { hook: settings.hook, ebpf, filtered }, ring, processors, log })
    }

    /// Attaches to interfaces in a namespace, to these directions of each. Packets go into the ring from here on.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn attach(
        mut self,
        netns: Netns,
        interfaces: &[(&str, &[Direction])],
    ) -> Result<(Capture, Packets, Option<KernelLog>)> {
        let since = boot_now();
        for (interface, directions) in interfaces {
            netns.run(|| self.programs.attach(interface, directions))?;
        }
        Ok(self.attached(Some(netns), since))
    }

    /// Attaches to a cgroup, beside what is attached there. Packets of its sockets, and of those of the cgroups below
    /// it, go into the ring from here on.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub fn attach_to_cgroup(mut self, path: &Path) -> Result<(Capture, Packets, Option<KernelLog>)> {
        let since = boot_now();
        self.programs.attach_to_cgroup(path)?;
        Ok(self.attached(None, since))
    }

    fn attached(self, netns: Option<Netns>, since: u64) -> (Capture, Packets, Option<KernelLog>) {
        let Self { programs, ring, processors, log } = self;
        let capture = Capture { netns, programs: Some(programs), processors: Arc::clone(&processors) };
        (capture, Packets { ring, processors, since }, log)
    }
}

impl Programs {
    fn attach(&mut self, interface: &str, directions: &[Direction]) -> Result<()> {
        if !has_links() {
            tc::qdisc_add_clsact(interface).context("add a clsact qdisc to", interface)?;
        }
        for direction in directions {
            let hook = match direction {
                Direction::In => TcAttachType::Ingress,
                Direction::Out => TcAttachType::Egress,
            };
            let program: &mut SchedClassifier =
                self.entry(*direction)?.try_into().context("use", interface)?;
            program.attach(interface, hook).context("attach the capture to", interface)?;
        }
        Ok(())
    }

    fn attach_to_cgroup(&mut self, path: &Path) -> Result<()> {
        // The kernel takes no mode for a link, which is there from 5.7 on: it lets others be beside it always.
        let mode = CgroupAttachMode::Single;
        let cgroup = File::open(path).context("open the cgroup", path.display())?;
        for (direction, hook) in
            [(Direction::In, CgroupSkbAttachType::Ingress), (Direction::Out, CgroupSkbAttachType::Egress)]
        {
            let program: &mut CgroupSkb =
                self.entry(direction)?.try_into().context("use", "the capture program")?;
            program.attach(&cgroup, hook, mode).map_err(|error| not_beside(error, path))?;
        }
        Ok(())
    }

    /// The program that gets the packets first.
    fn entry(&mut self, direction: Direction) -> Result<&mut Program> {
        let [ingress, egress] = self.hook.programs();
        let ebpf = self.filtered.as_mut().map_or(&mut self.ebpf, |filtered| &mut filtered.ebpf);
        program(ebpf, if direction == Direction::In { ingress } else { egress })
    }
}

impl Capture {
    /// Ends the capture. When it returns, no program puts anything into the ring any more.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn detach(&mut self) -> Result<()> {
        let Some(programs) = self.programs.take() else { return Ok(()) };
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

/// Since 6.6 programs are attached to interfaces by links of their own; before, to a qdisc that must be there.
fn has_links() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

/// The end of a link at an interface waits for the programs that are just running; that of a filter does not, nor that
/// of a link at a cgroup. This returns when
/// each processor has passed a point at which it runs none.
fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: it takes plain numbers. Where the kernel does not have it, nothing is waited for.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).ok_or_else(|| missing(name))
}

fn filtered(
    loader: &mut EbpfLoader<'_>,
    filter: &[classic::Instruction],
    hook: Hook,
    ebpf: &Ebpf,
    books: &MapData,
) -> Result<Filtered> {
    let fd = |name| ebpf.program(name).ok_or_else(|| missing(name))?.fd().context("use", name);
    let [ingress, egress] = hook.programs();
    let captures = [
        Captures { name: ingress, fd: fd(ingress)?, outgoing: false },
        Captures { name: egress, fd: fd(egress)?, outgoing: true },
    ];
    Filtered::load(loader, filter, hook, &captures, books.fd().as_fd())
}

/// Why the kernel does not attach to a cgroup. Who has not said that there may be others beside him is alone there, and
/// in what is below.
fn not_beside(error: ProgramError, path: &Path) -> Error {
    let (action, object) = ("attach the capture to cgroup", path.display().to_string());
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => match io_error.raw_os_error() {
            Some(libc::EPERM) => Error::told(format!(
                "cannot {action} {object}: a program that wants to be alone is attached there or above; \
                 'bpftool cgroup tree' shows it"
            )),
            _ => Error::Failed { action, object, source: io_error.into() },
        },
        error => Error::Failed { action, object, source: error.into() },
    }
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
