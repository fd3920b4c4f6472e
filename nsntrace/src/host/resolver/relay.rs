//! A way for the program's questions to the host's own name servers: they cross the link, so they are in the trace, and
//! the host asks on.
//!
//! It listens on ports that the kernel chooses, and rules lead port 53 of the gateway there: whoever listens on port 53
//! of every address of the host is not in its way.

use std::{
    cell::RefCell,
    ffi::OsString,
    io,
    net::IpAddr,
    rc::Rc,
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::{
    resource::{Resource, getrlimit},
    socket::{setsockopt, sockopt::BindToDevice},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::{self, Runtime},
    sync::oneshot,
    task::LocalSet,
};

use super::{tcp, udp, upstreams::Upstreams};
use crate::{
    capabilities,
    error::{Context, Result},
    subnet::Subnet,
    words::say,
};

/// Before a socket that fails is tried again: what it lacks others must free.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// The most questions by UDP at once.
const MAX_QUESTIONS: usize = 512;

/// The ports that a relay listens on.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// For UDP.
    pub udp: u16,
    /// For TCP.
    pub tcp: u16,
}

/// A relay at work, in a thread of its own. Dropped, it is gone with all its sockets.
#[derive(Debug)]
pub struct Relay {
    ports: Ports,
    // The thread ends when the sender is gone.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts one on the host's end of the link, for the program's end alone.
    ///
    /// # Errors
    /// Where sockets or a thread cannot be had.
    pub fn start(link: &str, subnet: &Subnet) -> Result<Self> {
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().context("start", "an event loop")?;
        let (udp, tcp) = listen(link, subnet.gateway, &runtime)
            .context("answer name look-ups on", format_args!("address {}", subnet.gateway))?;
        let ports = ports(&udp, &tcp).context("look at", "a socket")?;
        let (stop, stopped) = oneshot::channel();
        let asker = subnet.inside;
        let thread = thread::Builder::new()
            .name("dns-relay".into())
            .spawn(move || work(&runtime, udp, tcp, asker, stopped))
            .context("start", "a thread")?;
        Ok(Self { ports, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn ports(&self) -> Ports {
        self.ports
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there was told by then.
            let _ = thread.join();
        }
    }
}

/// The address is the host's, and others may send to it by another device: they are not heard. What the host itself
/// sends there counts as come by the link, and is told by its address.
fn listen(link: &str, gateway: IpAddr, runtime: &Runtime) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = std::net::UdpSocket::bind((gateway, 0))?;
    let tcp = std::net::TcpListener::bind((gateway, 0))?;
    setsockopt(&udp, BindToDevice, &OsString::from(link))?;
    setsockopt(&tcp, BindToDevice, &OsString::from(link))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let _inside = runtime.enter();
    Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
}

fn ports(udp: &UdpSocket, tcp: &TcpListener) -> io::Result<Ports> {
    Ok(Ports { udp: udp.local_addr()?.port(), tcp: tcp.local_addr()?.port() })
}

fn work(runtime: &Runtime, udp: UdpSocket, tcp: TcpListener, asker: IpAddr, stopped: oneshot::Receiver<()>) {
    if let Err(error) = capabilities::keep_only(&[]) {
        return say!("nsntrace: names are not looked up for the program: {error}");
    }
    let questions = at_once();
    let upstreams = Rc::new(RefCell::new(Upstreams::new()));
    LocalSet::new().block_on(runtime, async {
        tokio::select! {
            () = udp::serve(udp, asker, upstreams.clone(), questions) => {}
            () = tcp::serve(tcp, asker, upstreams, questions / 4) => {}
            _ = stopped => {}
        }
    });
}

/// A question by UDP takes a descriptor for each server that is asked, a connection two: together they leave the tracer
/// a good part of what it may have.
fn at_once() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(limit / 8).unwrap_or(MAX_QUESTIONS).clamp(8, MAX_QUESTIONS)
}
