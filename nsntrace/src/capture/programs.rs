//! The programs of a capture, in the kernel: loaded, and attached to interfaces or to a cgroup.

use std::{fs::File, os::fd::AsFd, path::Path};

use aya::{
    Ebpf,
    maps::MapData,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, Program, ProgramError, SchedClassifier,
        TcAttachType, tc,
    },
    sys::SyscallError,
};

use super::{
    Direction,
    filtered::{Captures, Filtered},
    hook::{self, Hook},
    missing,
    places::Place,
    tcx,
};
use crate::{
    error::{Context, Error, Result},
    filter::classic,
};

/// What is attached, and what it leads to.
pub(super) struct Programs {
    hook: Hook,
    ebpf: Ebpf,
    filtered: Option<Filtered>,
}

impl Programs {
    /// Loads those of the object that are for the hook.
    ///
    /// # Errors
    /// Where the kernel refuses one of them.
    pub(super) fn load(mut ebpf: Ebpf, hook: Hook) -> Result<Self> {
        for name in hook.programs() {
            let loaded = hook::load(program(&mut ebpf, name)?).map_err(refusal);
            loaded.context("load", format_args!("the capture program {name}"))?;
        }
        Ok(Self { hook, ebpf, filtered: None })
    }

    /// The object that they are of, with its maps.
    pub(super) fn object(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Puts a filter before them. `books` is the map in which what does not match is counted.
    ///
    /// # Errors
    /// Where the kernel does not take it: it may be too large.
    pub(super) fn filter(&mut self, filter: &[classic::Instruction], books: &MapData) -> Result<()> {
        let fd = |name| self.ebpf.program(name).ok_or_else(|| missing(name))?.fd().context("use", name);
        let [ingress, egress] = self.hook.programs();
        let captures = [
            Captures { name: ingress, fd: fd(ingress)?, outgoing: false },
            Captures { name: egress, fd: fd(egress)?, outgoing: true },
        ];
        self.filtered = Some(Filtered::load(filter, self.hook, &captures, books.fd().as_fd())?);
        Ok(())
    }

    /// Puts the programs into a place at an interface, in the present network namespace. Where there are links, they stay there
    /// as long as those are open; where there are none, as long as this is there.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub(super) fn attach(&mut self, place: &Place) -> Result<()> {
        let Place { interface, directions, links } = place;
        if !links.is_empty() {
            return directions.iter().zip(links).try_for_each(|(direction, link)| {
                let program = self.entry(*direction)?.fd().context("use", interface)?.as_fd();
                tcx::replace(link.as_fd(), program).context("attach the capture to", interface)
            });
        }
        tc::qdisc_add_clsact(interface).context("add a clsact qdisc to", interface)?;
        directions.iter().try_for_each(|direction| {
            let hook = match direction {
                Direction::In => TcAttachType::Ingress,
                Direction::Out => TcAttachType::Egress,
            };
            let program: &mut SchedClassifier =
                self.entry(*direction)?.try_into().context("use", interface)?;
            program.attach(interface, hook).map(drop).context("attach the capture to", interface)
        })
    }

    /// Attaches to a cgroup, beside others.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub(super) fn attach_to_cgroup(&mut self, path: &Path) -> Result<()> {
        // The kernel takes no mode for a link, which is there from 5.7 on: it lets others be beside it always.
        let mode = CgroupAttachMode::Single;
        let cgroup = File::open(path).context("open the cgroup", path.display())?;
        for (direction, hook) in
            [(Direction::In, CgroupSkbAttachType::Ingress), (Direction::Out, CgroupSkbAttachType::Egress)]
        {
            let program: &mut CgroupSkb =
                self.entry(direction)?.try_into().context("use", "the capture program")?;
            program.attach(&cgroup, hook, mode).map_err(|error| not_beside(error, "the capture", path))?;
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

pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).ok_or_else(|| missing(name))
}

/// Why the kernel does not attach to a cgroup. Who has not said that there may be others beside him is alone there, and
/// in what is below.
pub(super) fn not_beside(error: ProgramError, what: &str, path: &Path) -> Error {
    let (action, object) = ("attach", format!("{what} to cgroup {}", path.display()));
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

/// In one line. The verifier's verdict is the last that it says of the program itself, behind its whole way there.
pub(super) fn refusal(error: ProgramError) -> String {
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
