//! Where the running kernel keeps what, by its own description of its types.
//!
//! The format is that of Documentation/bpf/btf.rst of Linux.

use std::fs;

use nsntrace_ebpf::ownership::names::LAYOUT;

use crate::error::{Context, Error, Result};

/// The kernel's description.
const PATH: &str = "/sys/kernel/btf/vmlinux";

/// Kinds of types.
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;

/// Where a field is, by the name of the global that the kernel side has for it.
pub type Place = (&'static str, u32);

/// Finds all that the kernel side asks for.
///
/// # Errors
/// Where the kernel does not describe itself, or lacks one of them.
pub fn find() -> Result<Vec<Place>> {
    let bytes = fs::read(PATH).context("read", PATH)?;
    let types = Types::read(&bytes).ok_or_else(|| Error::told(format!("{PATH} is not as it should be")))?;
    LAYOUT
        .iter()
        .map(|(global, structure, path)| {
            let missing = || Error::told(format!("this kernel's {structure} has no {}", path.join(".")));
            Ok((*global, types.offset(structure, path).ok_or_else(missing)?))
        })
        .collect()
}

/// Types, by their numbers from 1 on.
struct Types<'a> {
    types: Vec<Type<'a>>,
    strings: &'a [u8],
}

#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    info: u32,
    /// The type that it is another word for, if it is that.
    of: u32,
    /// What follows on it.
    rest: &'a [u8],
}

impl<'a> Types<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let part = |at: usize| {
            let (offset, length) = (word(bytes, at)? as usize, word(bytes, at + 4)? as usize);
            bytes.get(word(bytes, 4)? as usize..)?.get(offset..offset + length)
        };
        let (mut rest, strings) = (part(8)?, part(16)?);
        let mut types = Vec::new();
        while !rest.is_empty() {
            let (name, info, of) = (word(rest, 0)?, word(rest, 4)?, word(rest, 8)?);
            let many = (info & 0xffff) as usize;
            let length = match kind(info) {
                1 | 14 | 17 => 4,
                3 => 12,
                STRUCT | UNION | 15 | 19 => 12 * many,
                6 | 13 => 8 * many,
                2 | 7..=12 | 16 | 18 => 0,
                _ => return None,
            };
            types.push(Type { name, info, of, rest: rest.get(12..12 + length)? });
            rest = &rest[12 + length..];
        }
        Some(Self { types, strings })
    }

    /// Where in a structure a field is, in bytes.
    fn offset(&self, structure: &str, path: &[&str]) -> Option<u32> {
        let is_it = |found: &&Type<'_>| {
            kind(found.info) == STRUCT && !found.rest.is_empty() && self.is_named(found.name, structure)
        };
        let mut present = *self.types.iter().find(is_it)?;
        let mut sum = 0;
        for name in path {
            let (offset, number) = self.field(present, name)?;
            sum += offset;
            present = self.resolve(number).unwrap_or(present);
        }
        Some(sum)
    }

    /// A field's offset, and the number of its type. Structures without a name are looked into.
    fn field(&self, structure: Type<'a>, wanted: &str) -> Option<(u32, u32)> {
        structure.rest.chunks_exact(12).find_map(|member| {
            let (name, number, bits) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            // In a structure with bit fields, the upper byte is a width.
            let bits = if structure.info >> 31 == 1 { bits & 0xff_ffff } else { bits };
            if self.is_named(name, wanted) {
                return Some((bits / 8, number));
            }
            if name != 0 && !self.is_named(name, "") {
                return None;
            }
            let inner = self.resolve(number)?;
            let (offset, number) = self.field(inner, wanted)?;
            Some((bits / 8 + offset, number))
        })
    }

    /// The structure of that number, or the one that it is another word for.
    fn resolve(&self, number: u32) -> Option<Type<'a>> {
        let found = *self.types.get((number as usize).checked_sub(1)?)?;
        match kind(found.info) {
            STRUCT | UNION => Some(found),
            // A typedef, volatile, const, restrict, or a tag: they lead from one to an earlier one, or to a structure.
            TYPEDEF..=11 | 18 => self.resolve(found.of),
            _ => None,
        }
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let text = self.strings.get(offset as usize..).unwrap_or_default();
        text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description of `struct outer { int a; union { int b; typedef_of_inner c; }; }`, of `struct inner { int x; int y; }`,
    /// and of what else there is.
    fn description() -> Vec<u8> {
        const INT: u32 = 1 << 24;
        let strings = b"\0int\0outer\0a\0b\0c\0inner\0x\0y\0word\0";
        let types: &[&[u32]] = &[
            &[1, INT, 4, 32],
            &[17, STRUCT << 24 | 2, 8, 23, 1, 0, 25, 1, 32],
            &[27, TYPEDEF << 24, 2],
            &[0, UNION << 24 | 2, 8, 13, 1, 0, 15, 3, 0],
            &[0, 13 << 24 | 1, 1, 0, 1],
            &[5, STRUCT << 24 | 1 << 31 | 2, 16, 11, 1, 32 << 24, 0, 4, 64],
        ];
        let words: Vec<u32> = types.concat();
        let length = u32::try_from(words.len() * 4).expect("short");
        let header = [0x1_eb9f, 24, 0, length, length, u32::try_from(strings.len()).expect("short")];
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        [&bytes(&header)[..], &bytes(&words), strings].concat()
    }

    #[test]
    fn fields_are_found() {
        let bytes = description();
        let types = Types::read(&bytes).expect("valid");
        for (path, offset) in [
            (&["a"][..], Some(0)),
            (&["b"], Some(8)),
            (&["c"], Some(8)),
            (&["c", "y"], Some(12)),
            (&["y"], None),
            (&["a", "y"], None),
        ] {
            assert_eq!(types.offset("outer", path), offset, "{path:?}");
        }
        assert_eq!(types.offset("inner", &["y"]), Some(4));
        assert_eq!(types.offset("word", &["y"]), None);
    }

    #[test]
    fn what_is_cut_or_of_an_unknown_kind_is_refused() {
        let bytes = description();
        for length in 0..bytes.len() {
            assert!(Types::read(&bytes[..length]).is_none(), "{length}");
        }
        let mut other = bytes;
        other[24 + 7] = 30;
        assert!(Types::read(&other).is_none());
    }
}
