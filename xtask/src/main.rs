//! `cargo xtask`: everything that is done with this workspace beyond `cargo build`.

mod bench;
mod deny;
mod dist;
mod ebpf;
mod fuzz;
mod setup;
mod shell;
mod soak;
mod test;
mod tool;
mod vm;

use std::{ffi::OsString, os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use shell::{as_root, cargo, root, run};

/// Set up, build, run, test and measure nsntrace
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing on this machine to build, run and test
    Setup,
    /// Build the eBPF object that is in the repository
    BuildEbpf {
        /// Change nothing; fail if the object is not what the source yields
        #[arg(long)]
        check: bool,
    },
    /// Set up, build, and run nsntrace with these arguments, as root
    Run {
        /// nsntrace's arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build what users install into target/dist: a Debian package, and an archive for others
    Dist,
    /// Measure what a trace costs, beside tcpdump and no capture at all; `cargo xtask bench --help` lists what
    #[command(disable_help_flag = true)]
    Bench {
        /// What to measure, and how
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Check licences, sources, duplicates and advisories of what is built in
    Deny,
    /// Let traces run, end and be killed by chance, and look whether anything of them is left
    Soak {
        /// For so long
        #[arg(default_value_t = 60)]
        minutes: u64,
        /// The same choices as with this one [default: others]
        seed: Option<u64>,
    },
    /// Read bytes that nobody would send, with libFuzzer; what is found goes into fuzz/corpus
    Fuzz {
        /// Which reader [default: each of them]
        target: Option<String>,
        /// For so long each
        #[arg(default_value_t = 600)]
        seconds: u64,
        /// Only take out of the target's corpus what reaches nothing new
        #[arg(long, requires = "target")]
        minimise: bool,
    },
    /// Trace a download under older kernels, Debian's own, in a virtual machine
    Vm {
        /// Which: 5.10, 6.1, 6.12 [default: all]
        versions: Vec<String>,
        /// Run the end-to-end tests whose names contain this instead
        #[arg(long, value_name = "FILTER")]
        tests: Option<String>,
        /// The binary is built already, by who may be another user
        #[arg(long, hide = true)]
        built: bool,
    },
    /// Set up and run every check and test
    Test {
        /// Run only tests whose names contain this
        filter: Option<String>,
    },
}

fn main() -> ExitCode {
    match perform(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(cli: Cli) -> Result<()> {
    std::env::set_current_dir(root()).context("cannot enter the workspace")?;
    match cli.task {
        Task::Setup => setup::for_tests().map(|()| println!("setup: everything is there")),
        Task::BuildEbpf { check: false } => ebpf::build(),
        Task::BuildEbpf { check: true } => ebpf::check(),
        Task::Dist => dist::dist(),
        Task::Run { arguments } => run_nsntrace(&arguments),
        Task::Fuzz { target: Some(target), minimise: true, .. } => fuzz::minimise(&target),
        Task::Fuzz { target, seconds, .. } => fuzz::fuzz(target.as_deref(), seconds),
        Task::Deny => deny::deny(),
        Task::Soak { minutes, seed } => soak::soak(minutes, seed),
        Task::Bench { arguments } => bench::bench(&arguments),
        Task::Vm { versions, tests, built } => test::under_kernels(&versions, tests.as_deref(), built),
        Task::Test { filter } => test::all(filter.as_deref()),
    }
}

fn run_nsntrace(arguments: &[OsString]) -> Result<()> {
    setup::to_run()?;
    run(&mut cargo(&["build", "--release", "--package", "nsntrace"]))?;
    let binary = root().join("target/release/nsntrace");
    let mut command = as_root(&binary);
    // Where the user stands, so that relative file names mean what they say.
    if let Some(folder) = std::env::var_os("PWD") {
        command.current_dir(folder);
    }
    Err(command.args(arguments).exec()).with_context(|| format!("cannot run {}", binary.display()))
}
