//! The options of an interface, as sentences from which Wireshark makes a form; see extcap(4) and its developer's guide.
//!
//! Wireshark 4.0 does not know a list with room for other values, so the list of cgroups has a field beside it.

use std::path::Path;

use crate::{cgroup, error::Result};

/// For a program. Defaults are those of the command line.
pub const PROGRAM: &[&str] = &[
    "{call=--program}{display=Program}{type=string}{required=true}{group=Program}\
     {placeholder=curl https://example.org/}\
     {tooltip=The program and its arguments, in quotes as for a shell; what it prints goes nowhere}",
    "{call=--user}{display=User}{type=string}{group=Program}\
     {tooltip=Who it runs as, by name or number: without one you, or root where Wireshark is root's}",
    "{call=--tls-keys}{display=Open its TLS}{type=boolflag}{default=false}{group=Program}\
     {tooltip=Give it an SSLKEYLOGFILE, and put the keys into the trace}",
    "{call=--device}{display=Device}{type=string}{group=Network}\
     {tooltip=The network device to use: without one the host's routing decides}",
    "{call=--use-public-dns}{display=Public name servers}{type=boolflag}{default=false}{group=Network}\
     {tooltip=Quad9, Cloudflare, Google and OpenDNS in place of the host's}",
    "{call=--publish}{display=Published ports}{type=string}{group=Network}{placeholder=8080 127.0.0.1:8443 53/udp}\
     {tooltip=Ports of the program that are reached at the host's}",
    "{call=--host-loopback}{display=Reach the host's loopback}{type=boolflag}{default=false}{group=Network}\
     {tooltip=Services on 127.0.0.1 and ::1 of the host are at the gateway addresses}",
    "{call=--loopback}{display=Trace its own loopback}{type=boolflag}{default=false}{group=Network}\
     {tooltip=What the program and what it starts say to each other}",
    PROCESS,
    SNAPLEN,
    BUFFER,
];

/// For a cgroup.
pub const CGROUP: &[&str] = &[
    "{call=--cgroup}{display=Cgroup}{type=selector}{reload=true}{placeholder=Look again}{group=Cgroup}\
     {tooltip=Those with processes in them}",
    "{call=--named}{display=Or one by name}{type=string}{group=Cgroup}{placeholder=web.service}\
     {tooltip=A path, one below the cgroup2 mount, or the name of a unit}",
    "{call=--pid}{display=Or that of a process}{type=string}{validation=^[0-9]+$}{group=Cgroup}\
     {tooltip=The number of a process that has a cgroup for itself and its descendants}",
    PROCESS,
    SNAPLEN,
    BUFFER,
];

const PROCESS: &str = "{call=--process}{display=Only processes}{type=string}{group=Capture}{placeholder=curl python3}\
     {tooltip=Only packets of processes with these names}";
const SNAPLEN: &str = "{call=--snaplen}{display=Bytes of a packet}{type=unsigned}{range=1,262144}{default=262144}\
     {group=Capture}{tooltip=At most so much of each is kept}";
const BUFFER: &str = "{call=--buffer-size}{display=Buffer in KiB}{type=unsigned}{range=1,2097152}{default=32768}\
     {group=Capture}{tooltip=The size of the ring buffer}";

/// Options as sentences.
pub fn numbered(options: &[&str]) -> String {
    options.iter().enumerate().map(|(number, option)| format!("arg {{number={number}}}{option}\n")).collect()
}

/// What there is to choose from for the first of [`CGROUP`].
///
/// # Errors
/// Where no cgroup2 is mounted.
pub fn cgroups() -> Result<String> {
    let mount = cgroup::mount()?;
    let mut found: Vec<_> = cgroup::below(&mount).into_iter().filter(|path| is_populated(path)).collect();
    found.sort();
    let none = "value {arg=0}{value=}{display=None of these}{default=true}\n".to_owned();
    Ok(found.iter().filter_map(|path| value(path, &mount)).fold(none, |text, sentence| text + &sentence))
}

fn is_populated(path: &Path) -> bool {
    // The root has no such file, and is nobody's in particular.
    std::fs::read_to_string(path.join("cgroup.events")).is_ok_and(|events| events.contains("populated 1"))
}

/// None for a name that the protocol cannot carry: what it would do to the form is its maker's choice.
fn value(path: &Path, mount: &Path) -> Option<String> {
    let shown = path.strip_prefix(mount).ok()?.to_str()?;
    let whole = path.to_str()?;
    let is_plain = !whole.contains(|sign: char| sign.is_control() || matches!(sign, '{' | '}'));
    is_plain.then(|| format!("value {{arg=0}}{{value={whole}}}{{display={shown}}}{{default=false}}\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use clap::CommandFactory;

    use super::*;
    use crate::extcap::Arguments;

    /// The types that Wireshark 4.0 knows, as far as they are of use.
    const TYPES: [&str; 4] = ["string", "unsigned", "boolflag", "selector"];

    /// Name and value of each part of a sentence, as Wireshark takes it apart.
    fn parts(option: &str) -> Vec<(&str, &str)> {
        let inner = option.strip_prefix('{').and_then(|option| option.strip_suffix('}')).expect("braces");
        let pairs: Vec<_> =
            inner.split("}{").map(|part| part.split_once('=').expect("a name and a value")).collect();
        assert!(pairs.iter().all(|(_, value)| !value.contains(['{', '}', '\n'])), "{option}");
        pairs
    }

    #[test]
    fn each_option_is_one_of_the_call() {
        let command = Arguments::command();
        let known: HashSet<_> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
        for option in PROGRAM.iter().chain(CGROUP) {
            let parts = parts(option);
            let find = |name: &str| parts.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
            let call = find("call").and_then(|call| call.strip_prefix("--")).expect("a call");
            assert!(known.contains(call), "{call}");
            assert!(
                find("display").is_some() && find("tooltip").is_some() && find("group").is_some(),
                "{call}"
            );
            assert!(find("type").is_some_and(|kind| TYPES.contains(&kind)), "{call}");
        }
    }

    #[test]
    fn sentences_have_numbers() {
        let form = numbered(&["{call=--a}", "{call=--b}"]);
        assert_eq!(form, "arg {number=0}{call=--a}\narg {number=1}{call=--b}\n");
    }

    #[test]
    fn cgroups_are_named_below_the_mount() {
        let value = |path: &str| value(Path::new(path), Path::new("/sys/fs/cgroup"));
        assert_eq!(
            value("/sys/fs/cgroup/system.slice/web.service").expect("a sentence"),
            "value {arg=0}{value=/sys/fs/cgroup/system.slice/web.service}{display=system.slice/web.service}{default=false}\n"
        );
        for odd in ["a}{value=b", "a\nvalue {arg=0}", "a\u{1b}[m"] {
            assert_eq!(value(&format!("/sys/fs/cgroup/{odd}")), None);
        }
    }
}
