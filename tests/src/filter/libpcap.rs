//! libpcap itself: what `tcpdump -r` picks.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr::null_mut,
    slice,
};

use anyhow::{Result, bail, ensure};

use nsntrace::filter::classic::{INTERFACE, Instruction, OUTGOING, PACKET_TYPE};

/// A classic program that libpcap interprets.
#[derive(Debug)]
pub struct Oracle(Vec<Instruction>);

/// libpcap's `struct bpf_program`.
#[repr(C)]
struct Program {
    length: u32,
    instructions: *mut Instruction,
}

/// libpcap's `struct pcap_pkthdr`.
#[repr(C)]
struct Header {
    time: libc::timeval,
    captured: u32,
    length: u32,
}

#[link(name = "pcap")]
unsafe extern "C" {
    fn pcap_offline_filter(program: *const Program, header: *const Header, packet: *const u8) -> c_int;
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

/// Compiles an expression as `tcpdump -r` does.
pub fn compile(expression: &str, linktype: u16) -> Result<Vec<Instruction>> {
    let text = CString::new(expression)?;
    let mut program = Program { length: 0, instructions: null_mut() };
    // SAFETY: pointers that are valid for the calls, and nothing is used after it is given back.
    unsafe {
        let pcap = pcap_open_dead(linktype.into(), 262_144);
        ensure!(!pcap.is_null(), "no memory for libpcap");
        if pcap_compile(pcap, &raw mut program, text.as_ptr(), 1, 0) != 0 {
            let message = CStr::from_ptr(pcap_geterr(pcap)).to_string_lossy().into_owned();
            pcap_close(pcap);
            bail!("{expression}: {message}");
        }
        let instructions = slice::from_raw_parts(program.instructions, program.length as usize).to_vec();
        pcap_freecode(&raw mut program);
        pcap_close(pcap);
        Ok(instructions)
    }
}

impl Oracle {
    /// A file does not tell of the direction and the interface: what the kernel knows of them is put into the program.
    pub fn new(program: &[Instruction], outgoing: bool, interface: u32) -> Self {
        let known = |instruction: &Instruction| {
            let constant = |k| Instruction { code: 0x00, jt: 0, jf: 0, k };
            match (instruction.code & 0xe7, instruction.k) {
                (0x20, PACKET_TYPE) => constant(if outgoing { OUTGOING } else { 0 }),
                (0x20, INTERFACE) => constant(interface),
                _ => *instruction,
            }
        };
        Self(program.iter().map(known).collect())
    }

    /// Whether it picks the packet.
    pub fn picks(&self, packet: &[u8]) -> bool {
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let header = Header { time: libc::timeval { tv_sec: 0, tv_usec: 0 }, captured: length, length };
        let program = Program {
            length: u32::try_from(self.0.len()).unwrap_or(u32::MAX),
            instructions: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: all of it is there during the call, with the lengths that are told.
        unsafe { pcap_offline_filter(&raw const program, &raw const header, packet.as_ptr()) != 0 }
    }
}
