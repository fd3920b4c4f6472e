//! Sends numbered UDP packets one by one: `drip ADDRESS:PORT COUNT MICROSECONDS`, the last being the mean pause between two.
//!
//! Prints how many were sent. A packet's data is its number, as eight bytes in network order.

use std::{net::UdpSocket, thread::sleep, time::Duration};

use anyhow::{Context, Result};

const USAGE: &str = "usage: drip ADDRESS:PORT COUNT MICROSECONDS";

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().context(USAGE)?;
    let count: u64 = arguments.next().context(USAGE)?.parse()?;
    let pause: u64 = arguments.next().context(USAGE)?.parse()?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(&server).with_context(|| format!("cannot reach {server}"))?;
    for number in 0..count {
        // Pauses differ, so that nothing falls into step with them.
        sleep(Duration::from_micros(fastrand::u64(0..=2 * pause)));
        socket.send(&number.to_be_bytes()).context("cannot send")?;
    }
    println!("{count}");
    Ok(())
}
