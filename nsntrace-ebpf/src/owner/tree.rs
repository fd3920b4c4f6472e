//! Beginning, change and end of processes.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_uid_gid,
        bpf_ktime_get_boot_ns,
        generated::{bpf_probe_read_kernel_str, bpf_probe_read_user},
    },
    macros::{map, raw_tracepoint},
    maps::{Array, CgroupArray, RingBuf},
    programs::RawTracePointContext,
};
use nsntrace_ebpf::ownership::{ARGUMENTS, Event, Exec, FILE, NAME, kind, process::ALIVE};

use super::{
    memory::{
        BPRM_FILENAME, MM_ARG_END, MM_ARG_START, SIGNAL_LIVE, TASK_MM, TASK_PID, TASK_SIGNAL, TASK_TGID,
        field,
    },
    processes,
};
use crate::{
    capture::{Hook, count},
    ring::bounded,
};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

#[map]
static MISSED: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static CGROUP: CgroupArray = CgroupArray::with_max_entries(1, 0);

#[unsafe(no_mangle)]
static IS_TOLD: Global<u32> = Global::new(0);

#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn sched_process_fork(ctx: RawTracePointContext) -> i32 {
    let parent = current();
    let known = match processes::get(parent) {
        known if known & ALIVE != 0 => known,
        // The number may be that of one that has ended.
        _ if is_in_cgroup() => processes::follow(parent, &name()),
        _ => 0,
    };
    let child: u64 = ctx.arg(1);
    let pid: u32 = field(child, &TASK_PID);
    // A thread is none.
    if known == 0 || pid != field(child, &TASK_TGID) {
        return 0;
    }
    processes::set(pid, known);
    tell(kind::FORK, pid, parent);
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn sched_process_exec(ctx: RawTracePointContext) -> i32 {
    let pid = current();
    if processes::is_alive(pid) || is_in_cgroup() {
        processes::follow(pid, &name());
        tell_exec(pid, ctx.arg(2));
    }
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn sched_process_exit(_ctx: RawTracePointContext) -> i32 {
    let pid = current();
    if is_last_thread() && processes::end(pid) {
        tell(kind::EXIT, pid, 0);
    }
    0
}

/// Whether the running thread, which ends, leaves no other in its process: the first one may end before others.
#[inline(always)]
fn is_last_thread() -> bool {
    // SAFETY: it has no precondition.
    let signal: u64 = field(unsafe { bpf_get_current_task() }, &TASK_SIGNAL);
    // The kernel has taken the thread out of this count by now.
    field::<u32>(signal, &SIGNAL_LIVE) == 0
}

/// Number of the running process.
#[inline(always)]
fn current() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The name of the running thread.
#[inline(always)]
fn name() -> [u8; NAME] {
    bpf_get_current_comm().unwrap_or([0; NAME])
}

#[inline(always)]
fn is_in_cgroup() -> bool {
    CGROUP.current_task_under_cgroup(0) == Ok(true)
}

/// What all events tell.
#[inline(always)]
fn event(kind: u32, pid: u32, parent: u32) -> Event {
    // SAFETY: it has no precondition.
    let time = unsafe { bpf_ktime_get_boot_ns() };
    let user = bpf_get_current_uid_gid() as u32;
    Event { time, kind, pid, parent, user, name: name(), file: 0, arguments: 0 }
}

#[inline(always)]
fn tell(kind: u32, pid: u32, parent: u32) {
    if IS_TOLD.load() == 0 {
        return;
    }
    let Some(mut place) = EVENTS.reserve::<Event>(0) else { return miss() };
    place.write(event(kind, pid, parent));
    place.submit(0);
}

/// Counts an event that user space does not get.
#[inline(always)]
fn miss() {
    if let Some(missed) = MISSED.get_ptr_mut(0) {
        // SAFETY: other CPUs raise it in one step too.
        unsafe { count(missed, Hook::Cgroup) };
    }
}

/// With the path and the arguments. `program` is the kernel's own description of what is executed.
#[inline(always)]
fn tell_exec(pid: u32, program: u64) {
    if IS_TOLD.load() == 0 {
        return;
    }
    let Some(mut place) = EVENTS.reserve::<Exec>(0) else { return miss() };
    let exec = place.as_mut_ptr();
    let mut event = event(kind::EXEC, pid, 0);
    // SAFETY: there is room for each, which the verifier checks; where nothing can be read, nothing is told.
    unsafe {
        let file: u64 = field(program, &BPRM_FILENAME);
        let length =
            bpf_probe_read_kernel_str((&raw mut (*exec).file).cast(), FILE as u32, file as *const c_void);
        // With the 0 at its end.
        if length > 1 {
            event.file = length as u32 - 1;
        }
        // SAFETY: it has no precondition.
        let memory: u64 = field(bpf_get_current_task(), &TASK_MM);
        let (start, end): (u64, u64) = (field(memory, &MM_ARG_START), field(memory, &MM_ARG_END));
        if start < end {
            let length = bounded((end - start).min(ARGUMENTS as u64) as u32, ARGUMENTS as u32);
            let to = (&raw mut (*exec).arguments).cast();
            if bpf_probe_read_user(to, length as u32, start as *const c_void) == 0 {
                event.arguments = length as u32;
            }
        }
        (&raw mut (*exec).event).write(event);
    }
    place.submit(0);
}
