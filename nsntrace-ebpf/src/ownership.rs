//! What both sides agree on where packets have owners: the layout of events, the flags of processes, and names.

/// Names under which user space finds the parts of the object.
pub mod names {
    /// The storage of a [`Tag`](super::Tag) in each socket.
    pub const TAGS: &str = "TAGS";
    /// The table of processes that live: their numbers, and what is known of each, see [`process`](super::process).
    pub const PROCESSES: &str = "PROCESSES";
    /// The table of those that have ended, or for which there was no room: as [`PROCESSES`].
    pub const OTHERS: &str = "OTHERS";
    /// The table of the names of `--process`, whose values mean nothing.
    pub const WANTED: &str = "WANTED";
    /// The array with the one cgroup whose processes are followed.
    pub const CGROUP: &str = "CGROUP";
    /// The ring buffer of [`Event`](super::Event)s.
    pub const EVENTS: &str = "EVENTS";
    /// The array with one `u64`, the number of events for which there was no room; user space maps it.
    pub const MISSED: &str = "MISSED";
    /// The `u32` global that is not 0 where only packets of wanted processes are captured.
    pub const IS_PICKY: &str = "IS_PICKY";
    /// The `u32` global that is not 0 where events are wanted.
    pub const IS_TOLD: &str = "IS_TOLD";
    /// The program for sockets that are made in the cgroup.
    pub const SOCK_CREATE: &str = "sock_create";
    /// The programs for a process's beginning, change and end. Each has the name of its tracepoint.
    pub const TRACEPOINTS: [&str; 3] = ["sched_process_fork", "sched_process_exec", "sched_process_exit"];

    /// The `u32` globals that tell where the kernel keeps what, as offsets in bytes: global, structure, and the path to
    /// a field.
    pub const LAYOUT: [(&str, &str, &[&str]); 9] = [
        ("TASK_TGID", "task_struct", &["tgid"]),
        ("TASK_PID", "task_struct", &["pid"]),
        ("TASK_MM", "task_struct", &["mm"]),
        ("TASK_SIGNAL", "task_struct", &["signal"]),
        ("SIGNAL_LIVE", "signal_struct", &["live"]),
        ("MM_ARG_START", "mm_struct", &["arg_start"]),
        ("MM_ARG_END", "mm_struct", &["arg_end"]),
        ("BPRM_FILENAME", "linux_binprm", &["filename"]),
        ("SOCK_OWNED", "sock", &["sk_lock", "owned"]),
    ];
}

/// What a socket's storage holds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Number of the process that used the socket last, as far as it has used it; else of the one that made it.
    pub owner: u32,
    /// Not 0 when the socket's flow is remembered for packets that come when it is closed.
    pub remembered: u32,
}

/// What is known of a process, bit by bit.
pub mod process {
    /// It has not ended.
    pub const ALIVE: u32 = 1;
    /// It is followed, or was until its end.
    pub const FOLLOWED: u32 = 4;
    /// Its name is one of those of `--process`.
    pub const WANTED: u32 = 2;
}

/// So many names can be wanted.
pub const MOST_NAMES: usize = 256;

/// Bytes of a process's name, the last of them 0.
pub const NAME: usize = 16;

/// Bytes that are kept of a path, the last of them 0.
pub const FILE: usize = 256;

/// Bytes that are kept of arguments.
pub const ARGUMENTS: usize = 4096;

/// What happens to a process.
pub mod kind {
    /// It begins, as a copy of its parent.
    pub const FORK: u32 = 1;
    /// It becomes another program.
    pub const EXEC: u32 = 2;
    /// It ends.
    pub const EXIT: u32 = 3;
}

/// What stands in the ring buffer of events.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When it happened, in nanoseconds of `CLOCK_BOOTTIME`.
    pub time: u64,
    /// See [`kind`].
    pub kind: u32,
    /// Number of the process.
    pub pid: u32,
    /// Number of its parent; 0 where it is not a beginning.
    pub parent: u32,
    /// Number of its user.
    pub user: u32,
    /// Its name, padded with zeros.
    pub name: [u8; NAME],
    /// Bytes of [`Exec::file`] in use; 0 where it is not known.
    pub file: u32,
    /// Bytes of [`Exec::arguments`] in use; 0 where they are not known.
    pub arguments: u32,
}

/// An event of the kind [`kind::EXEC`].
#[repr(C)]
pub struct Exec {
    /// What all have.
    pub event: Event,
    /// The path that was executed, as it was given.
    pub file: [u8; FILE],
    /// The arguments, each with a 0 behind it.
    pub arguments: [u8; ARGUMENTS],
}
