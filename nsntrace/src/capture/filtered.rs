//! The programs of `-f`: each counts what does not match, and hands the rest to a capture program.

use std::{
    mem::offset_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, ProgramArray},
    programs::{ProgramError, ProgramFd},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY;
use nsntrace_ebpf::{Counters, Processor};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

use super::{
    hook::{self, Hook},
    loader,
    programs::{program, refusal},
};
use crate::{
    error::{Context, Error, Result},
    filter::{
        self, Bad,
        assembler::Assembler,
        classic::{self, Size},
        ebpf::{
            FRAME, Instruction, R0, R1, R2, R3, R6,
            Width::{Bits32, Bits64},
            helper, operation, test,
        },
    },
};

/// A place on the stack that the filter's part has done with.
const SCRATCH: i16 = -8;

/// The filter's programs, and the ways from them to those of the capture.
pub(super) struct Filtered {
    pub(super) ebpf: Ebpf,
    /// When this is closed, nothing is captured any more.
    _ways: ProgramArray<MapData>,
}

/// A capture program that is to get only what matches.
pub(super) struct Captures<'a> {
    /// Its name, and that of the filter's program before it.
    pub(super) name: &'static str,
    /// The program.
    pub(super) fd: &'a ProgramFd,
    /// Whether it gets packets that leave, seen from the traced program.
    pub(super) outgoing: bool,
}

impl Filtered {
    /// Brings a filter into the kernel. `processors` is the map with the books.
    ///
    /// # Errors
    /// Where the kernel does not take it: it may be too large.
    pub(super) fn load(
        filter: &[classic::Instruction],
        hook: Hook,
        captures: &[Captures<'_>],
        processors: BorrowedFd<'_>,
    ) -> Result<Self> {
        let count = u32::try_from(captures.len()).context("count", "the filter's ways")?;
        let ways = MapData::create(
            aya_obj::Map::new_from_params(BPF_MAP_TYPE_PROG_ARRAY as u32, 4, 4, count, 0),
            "ways",
            None,
        );
        let ways = ways.context("make", "the filter's ways")?;
        let descriptor = ways.fd().as_fd().as_raw_fd();
        let mut ways =
            ProgramArray::try_from(Map::ProgramArray(ways)).context("make", "the filter's ways")?;

        let mut programs = Vec::new();
        for (way, capture) in (0..).zip(captures) {
            ways.set(way, capture.fd, 0).context("lead the filter to", capture.name)?;
            let place = filter::Hook { outgoing: capture.outgoing, tags: hook.has_tags(), direct: true };
            let matches = filter::translate(filter, place).context("translate", "the filter")?;
            let code = decide(&matches, hook, [descriptor, processors.as_raw_fd()], way);
            programs.push((capture.name, code.context("translate", "the filter")?));
        }
        let mut ebpf =
            loader::without_types().load(&object(hook, &programs)?).context("load", "the filter")?;
        for (name, code) in &programs {
            let loaded = hook::load(program(&mut ebpf, name)?);
            loaded.map_err(|error| refused(error, filter.len(), code.len()))?;
        }
        log::debug!("the filter has {} instructions, {} as eBPF", filter.len(), programs[0].1.len());
        Ok(Self { ebpf, _ways: ways })
    }
}

/// The filter's instructions, and what follows from them.
fn decide(
    matches: &[Instruction],
    hook: Hook,
    [ways, books]: [RawFd; 2],
    way: u32,
) -> Result<Vec<Instruction>, Bad> {
    let mut code = Assembler::default();
    let (no_match, end) = (code.label(), code.label());
    code.push_all(matches);
    code.jump(Instruction::jump_if(Bits64, test::EQ, R0, 0), no_match)?;

    code.push(Instruction::calculate(Bits64, operation::MOV, R1, R6));
    code.push_all(&Instruction::map(R2, ways));
    code.push(Instruction::calculate(Bits32, operation::MOV, R3, way.cast_signed()));
    code.push(Instruction::call(helper::TAIL_CALL));
    // It returns only where the way is closed.
    code.jump(Instruction::jump(), end)?;

    code.bind(no_match);
    code.push(Instruction::call(helper::GET_SMP_PROCESSOR_ID));
    code.push(Instruction::store(Size::Word, FRAME, SCRATCH, R0));
    code.push(Instruction::calculate(Bits64, operation::MOV, R2, FRAME));
    code.push(Instruction::calculate(Bits64, operation::ADD, R2, i32::from(SCRATCH)));
    code.push_all(&Instruction::map(R1, books));
    code.push(Instruction::call(helper::MAP_LOOKUP_ELEM));
    code.jump(Instruction::jump_if(Bits64, test::EQ, R0, 0), end)?;
    // Before the trace begins nothing is counted.
    code.push(Instruction::load(Size::Word, R1, R0, SNAPLEN));
    code.jump(Instruction::jump_if(Bits64, test::EQ, R1, 0), end)?;
    if hook.is_interrupted() {
        code.push(Instruction::calculate(Bits64, operation::MOV, R1, 1));
        code.push(Instruction::add_in_one_step(R0, FILTERED, R1));
    } else {
        code.push(Instruction::load_double(R1, R0, FILTERED));
        code.push(Instruction::calculate(Bits64, operation::ADD, R1, 1));
        code.push(Instruction::store_double(R0, FILTERED, R1));
    }

    code.bind(end);
    code.push(Instruction::calculate(Bits32, operation::MOV, R0, hook.verdict()));
    code.push(Instruction::exit());
    Ok(code.finish())
}

/// Where a processor counts what does not match.
#[expect(clippy::cast_possible_truncation, reason = "the counters are the first of a processor's data")]
const FILTERED: i16 = (offset_of!(Processor, counters) + offset_of!(Counters, filtered)) as i16;

/// Where it has the bytes to keep of a packet.
#[expect(clippy::cast_possible_truncation, reason = "an element is small")]
const SNAPLEN: i16 = offset_of!(Processor, snaplen) as i16;

/// An object file with these programs.
fn object(hook: Hook, programs: &[(&'static str, Vec<Instruction>)]) -> Result<Vec<u8>> {
    let endianness = if cfg!(target_endian = "big") { Endianness::Big } else { Endianness::Little };
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, endianness);
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"Dual MIT/GPL\0", 1);
    let section = object.add_section(Vec::new(), hook.section().as_bytes().to_vec(), SectionKind::Text);
    for (name, code) in programs {
        let bytes: Vec<u8> = code.iter().flat_map(|instruction| instruction.to_bytes()).collect();
        let value = object.append_section_data(section, &bytes, 8);
        object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value,
            size: bytes.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    object.write().context("make", "the filter's object")
}

/// With its size, for that is most often why: the verifier follows a million instructions on all ways through a program,
/// and names the limit that was met.
fn refused(error: ProgramError, classic: usize, translated: usize) -> Error {
    let is_too_large = is_too_large(&error);
    let fault =
        if is_too_large { " is too large for the kernel; shorten it" } else { ": the kernel refuses it" };
    let reason = refusal(error);
    Error::told(format!("the filter of -f{fault}: {classic} instructions, {translated} as eBPF: {reason}"))
}

fn is_too_large(error: &ProgramError) -> bool {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return false };
    let log = verifier_log.to_string();
    io_error.raw_os_error() == Some(libc::E2BIG)
        || ["too large", "too complex"].iter().any(|text| log.contains(text))
}
