//! libpcap, as far as it is needed: it alone knows the language.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr::{null, null_mut},
    slice,
};

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

#[link(name = "pcap")]
unsafe extern "C" {
    fn pcap_open_dead(linktype: c_int, snaplen: c_int) -> *mut c_void;
    fn pcap_compile(
        pcap: *mut c_void,
        program: *mut Program,
        expression: *const c_char,
        optimise: c_int,
        netmask: u32,
    ) -> c_int;
    fn pcap_freecode(program: *mut Program);
    fn pcap_geterr(pcap: *mut c_void) -> *const c_char;
    fn pcap_close(pcap: *mut c_void);
}

/// Compiles an expression as `tcpdump -r` does, without a network mask. It takes as long as it takes.
///
/// # Errors
/// What libpcap says of the expression.
pub fn compile(expression: &CStr, linktype: u16, optimise: bool) -> Result<Vec<Instruction>, Vec<u8>> {
    let mut program = Program { length: 0, instructions: null_mut() };
    // SAFETY: plain numbers, pointers that are valid for the calls, and nothing is used after it is given back.
    unsafe {
        // Files and this platform number one type differently.
        let linktype = if linktype == linktype::RAW { DLT_RAW } else { linktype.into() };
        let pcap = pcap_open_dead(linktype, MAX_SNAPLEN.cast_signed());
        if pcap == null::<c_void>().cast_mut() {
            return Err(b"libpcap has no memory".to_vec());
        }
        let result = if pcap_compile(pcap, &raw mut program, expression.as_ptr(), optimise.into(), 0) == 0 {
            let instructions = slice::from_raw_parts(program.instructions, program.length as usize).to_vec();
            pcap_freecode(&raw mut program);
            Ok(instructions)
        } else {
            Err(CStr::from_ptr(pcap_geterr(pcap)).to_bytes().to_vec())
        };
        pcap_close(pcap);
        result
    }
}
