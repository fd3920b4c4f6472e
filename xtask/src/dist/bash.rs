//! Completion for bash. clap's own for it knows neither users nor devices, nor that PROGRAM begins another command's line.

use clap::{Arg, Command, ValueHint};

use super::completions::other_letters;

const SCRIPT: &str = r#"# Completion of nsntrace(1), for bash-completion.

_nsntrace()
{
    local cur prev words cword split i
    _init_completion -s || return

    # From PROGRAM on it is another command's line. Of --option=value bash makes three words.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            =) ((i++)) ;;
            @VALUED@) [[ ${COMP_WORDS[i + 1]-} == = ]] || ((i++)) ;;
            -*) ;;
            *)
                local PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
                _command_offset "$i"
                return
                ;;
        esac
    done

    case $prev in
@VALUES@
    esac
    $split && return
    COMPREPLY=($(compgen -W '@NAMES@' -- "$cur"))
} &&
    complete -F _nsntrace nsntrace
"#;

/// Bash's completion.
pub fn completion(command: &Command) -> String {
    let options: Vec<_> = command.get_arguments().filter(|option| !option.is_positional()).collect();
    let flags: String =
        options.iter().filter(|option| !takes_value(option)).filter_map(|flag| flag.get_short()).collect();
    let valued: Vec<_> = options.iter().filter(|option| takes_value(option)).collect();
    let patterns: Vec<_> = valued
        .iter()
        .filter(|option| !option.is_require_equals_set())
        .map(|option| pattern(option, &flags))
        .collect();
    let values: Vec<_> = valued.iter().map(|option| value(option, &flags)).collect();
    let names: Vec<_> =
        options.iter().filter(|option| !option.is_hide_set()).filter_map(|option| name(option)).collect();
    SCRIPT
        .replace("@VALUED@", &patterns.join(" | "))
        .replace("@VALUES@", &values.join("\n"))
        .replace("@NAMES@", &names.join(" "))
}

fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values()
}

fn name(option: &Arg) -> Option<String> {
    let long = option.get_long().map(|long| format!("--{long}"));
    long.or_else(|| option.get_short().map(|short| format!("-{short}")))
}

/// A word that wants the next one, as `--outfile`, and `-o` alone or behind a flag.
fn pattern(option: &Arg, flags: &str) -> String {
    let long = option.get_long().map(|long| format!("--{long}"));
    let shorts: String = option.get_short().into_iter().chain(other_letters(option)).collect();
    let short = (!shorts.is_empty()).then(|| format!("-[{shorts}] | -[{flags}][{shorts}]"));
    [long, short].into_iter().flatten().collect::<Vec<_>>().join(" | ")
}

/// What stands behind such a word. Where it may have none, it stands behind an =.
fn value(option: &Arg, flags: &str) -> String {
    let values: Vec<_> =
        option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let offer = match (option.get_id().as_str(), option.get_value_hint()) {
        ("device", _) => words("$(ls /sys/class/net)"),
        ("pid", _) => words("$(cd /proc && echo [0-9]*)"),
        (_, ValueHint::Username) => r#"COMPREPLY=($(compgen -u -- "$cur"))"#.into(),
        (_, ValueHint::AnyPath | ValueHint::FilePath) => "_filedir".into(),
        _ if values.is_empty() => ":".into(),
        _ => words(&values.join(" ")),
    };
    let condition = if option.is_require_equals_set() { "$split && " } else { "" };
    format!("        {}) {condition}{{ {offer}; return; }} ;;", pattern(option, flags))
}

fn words(list: &str) -> String {
    format!(r#"COMPREPLY=($(compgen -W "{list}" -- "$cur"))"#)
}
