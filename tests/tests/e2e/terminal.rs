//! The terminal is the program's: keys, job control, and who is in the foreground.

use anyhow::Result;
use nsntrace_tests::{Job, Lab, Terminal, nsntrace_binary};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    ctrl_c_reaches_the_program_once,
    ctrl_c_reaches_another_process_group,
    ctrl_c_never_escalates,
    ctrl_z_and_fg,
    shell_on_the_terminal
];

/// Exits with 10 and the number of INTs. It waits a while for one too many.
const COUNT_INTERRUPTS: &str = "
import signal, sys, time
count = 0
def interrupted(signal, frame):
    global count
    count += 1
signal.signal(signal.SIGINT, interrupted)
print('ready', flush=True)
while count == 0:
    time.sleep(0.02)
end = time.monotonic() + 0.7
while time.monotonic() < end:
    time.sleep(0.05)
sys.exit(10 + count)
";

fn on_terminal(job: Job) -> Result<Terminal> {
    let mut terminal = job.spawn_on_terminal()?;
    terminal.shows("ready")?;
    Ok(terminal)
}

fn ctrl_c_reaches_the_program_once(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let mut terminal = on_terminal(lab.nsntrace(["python3", "-c", COUNT_INTERRUPTS])?)?;
    terminal.types(Terminal::CTRL_C)?;
    terminal.shows("Finished capturing 0 packets.")?;
    terminal.process.wait()?.exited(11)?;
    lab.assert_clean(&before)
}

/// As that of `timeout` is, and of who daemonises.
fn ctrl_c_reaches_another_process_group(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let program = format!("import os\nos.setpgid(0, 0)\n{COUNT_INTERRUPTS}");
    let mut terminal = on_terminal(lab.nsntrace(["python3", "-c", &program])?)?;
    terminal.types(Terminal::CTRL_C)?;
    terminal.process.wait()?.exited(11)?;
    lab.assert_clean(&before)
}

fn ctrl_c_never_escalates(lab: &Lab) -> Result<()> {
    let script = "trap 'echo caught' INT; echo ready; until read line; do :; done; exit 3";
    let mut terminal = on_terminal(lab.nsntrace(["sh", "-c", script])?)?;
    for _ in 0..4 {
        terminal.types(Terminal::CTRL_C)?;
        terminal.shows("caught")?;
    }
    terminal.types("go\n")?;
    terminal.process.wait()?.exited(3)?;
    Ok(())
}

/// A shell with job control, in the folder of the job, with `$nsntrace` in it.
fn shell(lab: &Lab) -> Result<Terminal> {
    let binary = nsntrace_binary()?.display().to_string();
    let shell = lab.tracer(["bash", "--norc", "--noprofile", "-i"])?;
    let mut terminal = shell.env("PS1", "[prompt]").env("nsntrace", &binary).spawn_on_terminal()?;
    terminal.shows("[prompt]")?;
    Ok(terminal)
}

fn ctrl_z_and_fg(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let mut terminal = shell(lab)?;
    terminal.types("$nsntrace sh -c 'echo rea\"\"dy; read line; echo got $line; exit 8'\n")?;
    terminal.shows("ready")?;
    terminal.types(Terminal::CTRL_Z)?;
    terminal.shows("Stopped")?;
    terminal.shows("[prompt]")?;
    // The shell has the terminal, and the program goes on only when it is told to.
    terminal.types("echo in the sh''ell\n")?;
    terminal.shows("in the shell")?;
    terminal.types("fg\n")?;
    terminal.shows("$nsntrace sh -c")?;
    terminal.types("word\n")?;
    terminal.shows("got word")?;
    terminal.shows("Finished capturing 0 packets.")?;
    terminal.shows("[prompt]")?;
    terminal.types("echo status $?; exit\n")?;
    terminal.shows("status 8")?;
    terminal.process.wait()?;
    lab.assert_clean(&before)
}

/// `nsntrace bash`: the shell in the trace has job control of its own.
fn shell_on_the_terminal(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let words = ["bash", "--norc", "--noprofile", "-i"];
    let mut terminal = lab.nsntrace(words)?.env("PS1", "[prompt]").spawn_on_terminal()?;
    terminal.shows("[prompt]")?;
    terminal.types("sh -c 'echo rea\"\"dy; exec sleep 1000'\n")?;
    terminal.shows("ready")?;
    terminal.types(Terminal::CTRL_Z)?;
    terminal.shows("Stopped")?;
    terminal.shows("[prompt]")?;
    terminal.types("fg\n")?;
    terminal.shows("sleep 1000")?;
    terminal.types(Terminal::CTRL_C)?;
    terminal.shows("[prompt]")?;
    terminal.types("echo status $?; exit 12\n")?;
    terminal.shows("status 130")?;
    terminal.shows("Finished capturing 0 packets.")?;
    terminal.process.wait()?.exited(12)?;
    lab.assert_clean(&before)
}
