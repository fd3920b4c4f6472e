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
    let options: Vec<_> = command.get_arguments().flat_map(specifications).collect();
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

/// An option in the language of fish's argparse, and its other letters.
fn specifications(option: &Arg) -> Vec<String> {
    let Some(takes) = option.get_num_args() else { return Vec::new() };
    let value = match (takes.takes_values(), takes.min_values()) {
        (false, _) => "",
        (true, 0) => "=?",
        (true, _) => "=",
    };
    let names = match (option.get_short(), option.get_long()) {
        (Some(short), Some(long)) => Some(format!("{short}/{long}")),
        (Some(short), None) => Some(short.to_string()),
        (None, long) => long.map(str::to_owned),
    };
    let names = names.into_iter().chain(other_letters(option).into_iter().map(String::from));
    names.map(|names| format!("'{names}{value}'")).collect()
}

/// An option's letters beside the one that the help shows.
pub fn other_letters(option: &Arg) -> Vec<char> {
    option.get_all_short_aliases().unwrap_or_default()
}

/// What clap makes, without the options that the help hides, which clap does not look at here.
fn generate(shell: impl Generator, command: &Command) -> Result<String> {
    let mut script = Vec::new();
    // It leaves out letters that the help does not show.
    let shown = command.clone().mut_args(|option| {
        let letters = other_letters(&option);
        option.visible_short_aliases(letters)
    });
    shell.try_generate(&shown, &mut script)?;
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
