//! Completion for zsh and fish: what clap makes for them, with what it has no word for.

use anyhow::{Context, Result, ensure};
use clap::{Arg, Command};
use clap_complete::{
    Generator,
    shells::{Fish, Zsh},
};

/// Values that clap has no hint for, by the option's long name, and who knows them in zsh and in fish.
const KNOWN: [(&str, &str, &str); 2] =
    [("device", "_net_interfaces", "__fish_print_interfaces"), ("pid", "_pids", "__fish_complete_pids")];

/// From PROGRAM on it is another command's line, which completes itself.
const FISH: &str = "\
function __nsntrace_program -d 'Print the words from PROGRAM on, if it is there'
    set -l words (commandline -opc) (commandline -ct)
    argparse --stop-nonopt @OPTIONS@ -- $words[2..] 2>/dev/null
    and set -q argv[1]
    and not string match -q -- '-*' $argv[1]
    or return
    # Its own status is another one where there is a single word.
    string join0 -- $argv
    return 0
end

function __nsntrace_complete_program
    set -lx -a PATH /usr/local/sbin /usr/sbin /sbin
    __fish_complete_subcommand --commandline (__nsntrace_program | string split0)
end

complete -c nsntrace -n '__nsntrace_program >/dev/null' -x -a '(__nsntrace_complete_program)'
";

/// Zsh's completion.
///
/// # Errors
/// Where it is not as expected.
pub fn zsh(command: &Command) -> Result<String> {
    let mut script = generate(Zsh, command)?;
    for (option, function, _) in KNOWN {
        let value = format!(":{}:", option.to_uppercase());
        ensure!(script.contains(&value), "zsh's completion has no {value}");
        script = script.replace(&value, &format!("{value}{function}"));
    }
    Ok(script)
}

/// Fish's completion.
///
/// # Errors
/// Where it is not as expected.
pub fn fish(command: &Command) -> Result<String> {
    let options: Vec<_> = command.get_arguments().filter_map(specification).collect();
    let mut script = generate(Fish, command)?;
    for (name, _, function) in KNOWN {
        let known = command.get_arguments().find(|option| option.get_long() == Some(name));
        let short = known.and_then(|option| option.get_short());
        let short = short.map(|short| format!(" -s {short}")).unwrap_or_default();
        script += &format!("complete -c nsntrace -l {name}{short} -x -a '({function})'\n");
    }
    let script = script.replace("-c nsntrace -", "-c nsntrace -n 'not __nsntrace_program >/dev/null' -");
    Ok(FISH.replace("@OPTIONS@", &options.join(" ")) + &script)
}

/// An option in the language of fish's argparse.
fn specification(option: &Arg) -> Option<String> {
    let takes = option.get_num_args()?;
    let value = match (takes.takes_values(), takes.min_values()) {
        (false, _) => "",
        (true, 0) => "=?",
        (true, _) => "=",
    };
    match (option.get_short(), option.get_long()) {
        (Some(short), Some(long)) => Some(format!("'{short}/{long}{value}'")),
        (Some(short), None) => Some(format!("'{short}{value}'")),
        (None, Some(long)) => Some(format!("'{long}{value}'")),
        (None, None) => None,
    }
}

/// What clap makes, without the options that the help hides, which clap does not look at here.
fn generate(shell: impl Generator, command: &Command) -> Result<String> {
    let mut script = Vec::new();
    shell.try_generate(command, &mut script)?;
    let script = String::from_utf8(script).context("a completion is no text")?;
    let hidden: Vec<_> =
        command.get_arguments().filter(|option| option.is_hide_set()).filter_map(Arg::get_long).collect();
    let is_hidden = |line: &str| {
        let names =
            |name: &&str| line.contains(&format!("'--{name}[")) || line.contains(&format!(" -l {name} "));
        hidden.iter().any(names)
    };
    Ok(script.lines().filter(|line| !is_hidden(line)).map(|line| format!("{line}\n")).collect())
}
