//! Sends small UDP packets as fast as it can: `flood ADDRESS:PORT COUNT`.
//!
//! Prints how many the kernel took, and in how many nanoseconds. A packet is 64 bytes long on an Ethernet.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};

/// 64 bytes without the headers of Ethernet (14), IPv4 (20) and UDP (8).
const PAYLOAD: [u8; 22] = [0x55; 22];
const BATCH: usize = 64;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().context("usage: flood ADDRESS:PORT COUNT")?;
    let count: usize = arguments.next().context("usage: flood ADDRESS:PORT COUNT")?.parse()?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(&server).with_context(|| format!("cannot reach {server}"))?;
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let slices = [[IoSlice::new(&PAYLOAD)]; BATCH];
    let addresses: [Option<SockaddrIn>; BATCH] = [None; BATCH];
    let started = Instant::now();
    let mut sent = 0;
    while sent < count {
        let batch = BATCH.min(count - sent);
        let (slices, addresses) = (&slices[..batch], &addresses[..batch]);
        match sendmmsg(socket.as_raw_fd(), &mut headers, slices, addresses, [], MsgFlags::empty()) {
            Ok(results) => sent += results.count(),
            // Nothing of the batch was sent.
            Err(Errno::ENOBUFS | Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    println!("{sent} {}", started.elapsed().as_nanos());
    Ok(())
}
