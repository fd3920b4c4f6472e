//! libpcap itself: what `tcpdump -r` picks.

use std::ffi::{CString, c_int};

use anyhow::{Result, anyhow};
use nsntrace::filter::{
    classic::{INTERFACE, Instruction, OUTGOING, PACKET_TYPE},
    libpcap::Library,
};

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
}

/// Compiles an expression as `tcpdump -r` does.
pub fn compile(expression: &str, linktype: u16) -> Result<Vec<Instruction>> {
    let expression = CString::new(expression)?;
    let compiled = Library::load().and_then(|library| library.compile(&expression, linktype, true));
    compiled.map_err(|message| anyhow!("{expression:?}: {}", String::from_utf8_lossy(&message)))
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
