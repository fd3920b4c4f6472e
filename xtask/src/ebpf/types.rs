//! The types of the map that the kernel takes only with them, in its own format for types: see Documentation/bpf/btf.rst
//! of Linux. What the compiler would say of all types, kernels refuse, for it has names that no C type has.

/// Kinds of types.
const INT: u32 = 1 << 24;
const POINTER: u32 = 2 << 24;
const ARRAY: u32 = 3 << 24;
const STRUCT: u32 = 4 << 24;
const VARIABLE: u32 = 14 << 24;
const SECTION: u32 = 15 << 24;

/// Of an integer: 32 bits, with or without a sign.
const BITS: u32 = 32;
const SIGNED_BITS: u32 = 1 << 24 | 32;

/// Of a variable: others see it.
const GLOBAL: u32 = 1;

/// A type of map, and flags, as numbers.
const SK_STORAGE: u32 = 24;
const NO_PREALLOC_AND_CLONE: u32 = 1 | 1 << 9;

/// The description of the map `TAGS`, whose definition is in the kernel side's `owner/tags.rs`: a pointer for each of its
/// fields, and the lengths of arrays that they lead to are the numbers.
pub(super) fn description() -> Vec<u8> {
    let mut names = Names(vec![0]);
    let mut name = |text: &str| names.add(text);
    let (int, word) = (1, 2);
    let types: &[&[u32]] = &[
        &[name("int"), INT, 4, SIGNED_BITS],
        &[name("u32"), INT, 4, BITS],
        &[name("Tag"), STRUCT | 2, 8, name("owner"), word, 0, name("remembered"), word, 32],
        &[0, ARRAY, 0, int, int, SK_STORAGE],
        &[0, ARRAY, 0, int, int, 0],
        &[0, ARRAY, 0, int, int, NO_PREALLOC_AND_CLONE],
        &[0, POINTER, 4],
        &[0, POINTER, int],
        &[0, POINTER, 3],
        &[0, POINTER, 5],
        &[0, POINTER, 6],
        &[
            name("Definition"),
            STRUCT | 5,
            40,
            name("type"),
            7,
            0,
            name("key"),
            8,
            64,
            name("value"),
            9,
            128,
            name("max_entries"),
            10,
            192,
            name("map_flags"),
            11,
            256,
        ],
        &[name("TAGS"), VARIABLE, 12, GLOBAL],
        &[name(".maps"), SECTION | 1, 40, 13, 0, 40],
    ];
    let types = bytes(&types.concat());
    let header = [0x1_eb9f, 24, 0, length(&types), length(&types), length(&names.0)];
    [bytes(&header), types, names.0].concat()
}

/// Names, each with a zero behind it, by their offsets.
struct Names(Vec<u8>);

impl Names {
    fn add(&mut self, name: &str) -> u32 {
        let at = length(&self.0);
        self.0.extend(name.bytes());
        self.0.push(0);
        at
    }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
