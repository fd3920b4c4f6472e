//! The programs that find out whose packets are: loaded, and attached to a cgroup and to the kernel's tracepoints.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{CgroupArray, HashMap, Map, MapError, SkStorage},
    programs::{CgroupAttachMode, CgroupSock, Program, RawTracePoint},
};
use nix::sys::mman::ProtFlags;
use nsntrace_ebpf::ownership::{
    names,
    process::{ALIVE, FOLLOWED, WANTED},
};

use super::{
    mapping::Mapping,
    missing,
    programs::{not_beside, program, refusal},
    ring::Ring,
    take,
    watch::Watch,
};
use crate::{
    error::{Context, Result},
    ownership::{Name, Owners, layout, news::News, present},
    page, proc,
    words::say,
};

/// Size of the ring buffer of events in bytes: room for some hundred beginnings of programs.
const EVENTS: u32 = 4 << 20;

/// What the programs are to know of what is wanted, and of the kernel.
pub(super) struct Knowledge {
    layout: Vec<layout::Place>,
    is_picky: u32,
    is_told: u32,
}

impl Knowledge {
    /// Finds it out.
    ///
    /// # Errors
    /// Where the kernel does not describe itself.
    pub(super) fn find(owners: &Owners) -> Result<Self> {
        Ok(Self {
            layout: layout::find()?,
            is_picky: (!owners.only.is_empty()).into(),
            is_told: owners.told.into(),
        })
    }

    /// Tells it to the object that is loaded next.
    pub(super) fn tell<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (name, place) in &self.layout {
            loader.override_global(name, place, true);
        }
        loader
            .override_global(names::IS_PICKY, &self.is_picky, true)
            .override_global(names::IS_TOLD, &self.is_told, true)
            .map_max_entries(names::EVENTS, if self.is_told == 0 { page::size() } else { EVENTS });
    }
}

/// Brings the programs into the kernel.
///
/// # Errors
/// Where it refuses one of them.
pub(super) fn load(ebpf: &mut Ebpf, owners: &Owners) -> Result<Option<Watch>> {
    for name in names::TRACEPOINTS {
        let tracepoint: &mut RawTracePoint = program(ebpf, name)?.try_into().context("use", name)?;
        tracepoint.load().map_err(refusal).context("load", format_args!("the program {name}"))?;
    }
    let name = names::SOCK_CREATE;
    let sock_create: &mut CgroupSock = program(ebpf, name)?.try_into().context("use", name)?;
    sock_create.load().map_err(refusal).context("load", format_args!("the program {name}"))?;

    let wanted = ebpf.map_mut(names::WANTED).ok_or_else(|| missing(names::WANTED))?;
    let mut wanted: HashMap<_, [u8; 16], u8> = HashMap::try_from(wanted).context("use", names::WANTED)?;
    for name in &owners.only {
        wanted.insert(name.0, 0, 0).context("note", "a name of --process")?;
    }
    if !owners.told {
        return Ok(None);
    }
    let Some(Map::RingBuf(events)) = ebpf.take_map(names::EVENTS) else { return Err(missing(names::EVENTS)) };
    let events = events.fd().as_fd().try_clone_to_owned().context("hold", "the ring buffer of events")?;
    // Whoever reads it later may no longer ask the kernel for a map.
    let missed = take(ebpf, names::MISSED)?;
    let missed = Mapping::new(missed.fd().as_fd(), 0, size_of::<u64>(), ProtFlags::PROT_READ)?;
    Ring::map(events, EVENTS as usize).map(|ring| Some(Watch::new(ring, missed)))
}

/// Follows the processes of a cgroup and what becomes of them.
///
/// # Errors
/// Where the kernel refuses it.
pub(super) fn attach(ebpf: &mut Ebpf, path: &Path) -> Result<()> {
    let cgroup = File::open(path).context("open the cgroup", path.display())?;
    let Program::CgroupSock(sock_create) = program(ebpf, names::SOCK_CREATE)? else {
        return Err(missing(names::SOCK_CREATE));
    };
    // As for packets, see there. This first: others may refuse it, and then nothing else is attached.
    let attached = sock_create.attach(&cgroup, CgroupAttachMode::Single);
    attached.map_err(|error| not_beside(error, "what finds owners", path))?;
    let map = ebpf.map_mut(names::CGROUP).ok_or_else(|| missing(names::CGROUP))?;
    let mut map = CgroupArray::try_from(map).context("use", names::CGROUP)?;
    map.set(0, cgroup.as_raw_fd(), 0).context("follow the cgroup", path.display())?;
    for name in names::TRACEPOINTS {
        let tracepoint: &mut RawTracePoint = program(ebpf, name)?.try_into().context("use", name)?;
        tracepoint.attach(name).context("attach to the tracepoint", name)?;
    }
    Ok(())
}

/// Only where there is none: what the kernel side has noted is newer.
const BPF_NOEXIST: u64 = 1;

/// Takes over the processes that are in the cgroup already, and their sockets: one that several have is the oldest's. Where
/// some may not be looked at, one line says so.
///
/// # Errors
/// Where the kernel does not take what is noted of them.
pub(super) fn adopt(ebpf: &mut Ebpf, path: &Path, owners: &Owners) -> Result<Vec<News>> {
    if !proc::shows_the_hosts_processes() {
        say!(
            "nsntrace: processes that run already have other numbers for the kernel than here, so packets of their open \
             sockets have no owners"
        );
        return Ok(Vec::new());
    }
    let processes = present::processes(path);
    for process in &processes {
        note_process(ebpf, process, owners)?;
    }
    let failures: Vec<_> = processes
        .iter()
        .filter_map(|process| {
            note_sockets(ebpf, process.pid).err().filter(|_| present::is_there(process.pid))
        })
        .collect();
    if let Some(error) = failures.first() {
        let count = failures.len();
        say!("nsntrace: packets of sockets that {count} processes have open already have no owners: {error}");
    }
    Ok(processes)
}

fn note_process(ebpf: &mut Ebpf, process: &News, owners: &Owners) -> Result<()> {
    let is_wanted = Name::new(&process.name).is_ok_and(|name| owners.only.contains(&name));
    let known = ALIVE | FOLLOWED | if is_wanted { WANTED } else { 0 };
    for name in [names::PROCESSES, names::OTHERS] {
        let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
        let mut map: HashMap<_, u32, u32> = HashMap::try_from(map).context("use", name)?;
        let noted = map.insert(process.pid, known, BPF_NOEXIST);
        if !present::is_there(process.pid) {
            let _ = map.remove(&process.pid);
        }
        // It is there already if the kernel side was faster.
        if !noted.is_err_and(|error| is_full(&error)) {
            break;
        }
    }
    Ok(())
}

fn is_full(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::E2BIG))
}

fn note_sockets(ebpf: &mut Ebpf, pid: u32) -> Result<()> {
    let map = ebpf.map_mut(names::TAGS).ok_or_else(|| missing(names::TAGS))?;
    let mut map: SkStorage<_, [u32; 2]> = SkStorage::try_from(map).context("use", names::TAGS)?;
    let looked = present::each_socket(pid, |socket| {
        // It has a tag already if an older process has it too.
        let _ = map.insert(&socket, [pid, 0], BPF_NOEXIST);
    });
    looked.context("look at the sockets of process", pid)
}
