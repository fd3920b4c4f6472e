//! libpcap, as far as it is needed: it alone knows the language.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr::{null, null_mut},
    slice,
};

use libloading::Symbol;
use nsntrace_ebpf::{MAX_SNAPLEN, linktype};

use super::classic::Instruction;

/// libpcap's number for packets without a link-layer header, on Linux.
const DLT_RAW: c_int = 12;

/// libpcap's `struct bpf_program`.
#[repr(C)]
struct Program {
    length: u32,
    instructions: *mut Instruction,
}

/// Its file, as Debian names it, and as others do.
const FILES: [&str; 2] = ["libpcap.so.0.8", "libpcap.so.1"];

type OpenDead = unsafe extern "C" fn(linktype: c_int, snaplen: c_int) -> *mut c_void;
type Compile = unsafe extern "C" fn(
    pcap: *mut c_void,
    program: *mut Program,
    expression: *const c_char,
    optimise: c_int,
    netmask: u32,
) -> c_int;
type FreeCode = unsafe extern "C" fn(program: *mut Program);
type GetErr = unsafe extern "C" fn(pcap: *mut c_void) -> *const c_char;
type Close = unsafe extern "C" fn(pcap: *mut c_void);

/// The library, loaded when there is something to compile: with it come ten others, which a trace without a filter does
/// not need.
#[derive(Debug)]
pub struct Library(libloading::Library);

impl Library {
    /// Loads it.
    ///
    /// # Errors
    /// Where it is not there, with the package to install.
    pub fn load() -> Result<Self, Vec<u8>> {
        let mut reasons = Vec::new();
        for file in FILES {
            // SAFETY: what it does when it is loaded is what it does in every program that is linked with it.
            match unsafe { libloading::Library::new(file) } {
                Ok(library) => return Ok(Self(library)),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        let reasons = reasons.join("; ");
        Err(format!("libpcap is needed for filters: install the package libpcap0.8, or libpcap ({reasons})")
            .into())
    }

    /// Compiles an expression as `tcpdump -r` does, without a network mask. It takes as long as it takes.
    ///
    /// # Errors
    /// What libpcap says of the expression.
    pub fn compile(
        &self,
        expression: &CStr,
        linktype: u16,
        optimise: bool,
    ) -> Result<Vec<Instruction>, Vec<u8>> {
        let mut program = Program { length: 0, instructions: null_mut() };
        // SAFETY: the types are those of pcap.h; plain numbers, pointers that are valid for the calls, and nothing is used
        // after it is given back.
        unsafe {
            let open_dead = self.function::<OpenDead>("pcap_open_dead")?;
            let compile = self.function::<Compile>("pcap_compile")?;
            let free_code = self.function::<FreeCode>("pcap_freecode")?;
            let get_err = self.function::<GetErr>("pcap_geterr")?;
            let close = self.function::<Close>("pcap_close")?;
            // Files and this platform number one type differently.
            let linktype = if linktype == linktype::RAW { DLT_RAW } else { linktype.into() };
            let pcap = open_dead(linktype, MAX_SNAPLEN.cast_signed());
            if pcap == null::<c_void>().cast_mut() {
                return Err(b"libpcap has no memory".to_vec());
            }
            let result = if compile(pcap, &raw mut program, expression.as_ptr(), optimise.into(), 0) == 0 {
                let instructions =
                    slice::from_raw_parts(program.instructions, program.length as usize).to_vec();
                free_code(&raw mut program);
                Ok(instructions)
            } else {
                Err(CStr::from_ptr(get_err(pcap)).to_bytes().to_vec())
            };
            close(pcap);
            result
        }
    }

    /// # Safety
    /// It has this type.
    unsafe fn function<T>(&self, name: &str) -> Result<Symbol<'_, T>, Vec<u8>> {
        // SAFETY: the caller's.
        unsafe { self.0.get(name) }.map_err(|error| format!("libpcap has no {name}: {error}").into_bytes())
    }
}
