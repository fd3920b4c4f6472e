//! Sends small UDP packets as fast as it can: `flood ADDRESS:PORT COUNT [SENDERS]`, so many from each sender.
//!
//! Prints how many the kernel took, and in how many nanoseconds. A packet is 64 bytes long on an Ethernet.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};

/// 64 bytes without the headers of Ethernet (14), IPv4 (20) and UDP (8).
const PAYLOAD: [u8; 22] = [0x55; 22];
const BATCH: usize = 64;

const USAGE: &str = "usage: flood ADDRESS:PORT COUNT [SENDERS]";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().context(USAGE)?;
    let count: usize = arguments.next().context(USAGE)?.parse()?;
    let senders: usize = arguments.next().map_or(Ok(1), |senders| senders.parse())?;
    let sockets = (0..senders).map(|_| connected(&server)).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let sent: usize = thread::scope(|scope| {
        let running: Vec<_> = sockets.iter().map(|socket| scope.spawn(|| send(socket, count))).collect();
        let ended =
            running.into_iter().map(|sender| sender.join().map_err(|_| anyhow!("a sender panicked"))?);
        ended.sum::<Result<_>>()
    })?;
    let taken = started.elapsed();
    println!("{sent} {}", taken.as_nanos());
    Ok(())
}

fn connected(server: &str) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server).with_context(|| format!("cannot reach {server}"))?;
    Ok(socket)
}

/// Returns how many were sent.
fn send(socket: &UdpSocket, count: usize) -> Result<usize> {
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let slices = [[IoSlice::new(&PAYLOAD)]; BATCH];
    let addresses: [Option<SockaddrIn>; BATCH] = [None; BATCH];
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
    Ok(sent)
}
