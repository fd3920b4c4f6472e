//! Questions by TCP: each connection of the program's is joined to one to a name server.
//!
//! Bytes are passed on as they come, so that any number of questions may be on their way, answers have any length, and
//! no answer gets to anybody else.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::Semaphore,
    task::spawn_local,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{relay::PAUSE, upstreams::Upstreams};

/// How long a server may take to accept a connection before the next one is tried.
const CONNECT: Duration = Duration::from_secs(2);

/// How long nothing may pass on a connection before it is closed.
const IDLE: Duration = Duration::from_secs(15);

/// Bytes that are held in each direction of a connection.
const BUFFER: usize = 8 << 10;

/// Serves `asker`, so many connections at once. Those beyond wait to be accepted. Never returns.
pub async fn serve(listener: TcpListener, asker: IpAddr, upstreams: Rc<RefCell<Upstreams>>, at_once: usize) {
    let slots = Arc::new(Semaphore::new(at_once));
    loop {
        let slot = slots.clone().acquire_owned().await.expect("never closed");
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        };
        if from.ip() != asker {
            continue;
        }
        let servers = upstreams.borrow_mut().now();
        spawn_local(async move {
            if let Some(upstream) = connect(&servers).await {
                join(stream, upstream).await;
            }
            drop(slot);
        });
    }
}

/// A connection to the first server that takes one.
async fn connect(servers: &[SocketAddr]) -> Option<TcpStream> {
    for server in servers {
        if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(server)).await {
            return Some(stream);
        }
    }
    None
}

/// Until the server has said all, or nothing passes any more.
async fn join(mut asker: TcpStream, mut upstream: TcpStream) {
    // A message is written in whatever pieces it came in: none of them is to wait for the next.
    let _ = asker.set_nodelay(true).and_then(|()| upstream.set_nodelay(true));
    let passed = Cell::new(Instant::now());
    let (from_asker, to_asker) = asker.split();
    let (from_upstream, to_upstream) = upstream.split();
    tokio::select! {
        _ = carry(from_upstream, to_asker, &passed) => {}
        () = ask_all(from_asker, to_upstream, &passed) => {}
        () = idle(&passed) => {}
    }
}

/// Never returns from an asker who has asked all: answers may still come.
async fn ask_all(from: ReadHalf<'_>, to: WriteHalf<'_>, passed: &Cell<Instant>) {
    if carry(from, to, passed).await.is_ok() {
        std::future::pending().await
    }
}

/// Passes everything on, and that it ends.
async fn carry(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, passed: &Cell<Instant>) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    loop {
        let len = from.read(&mut buffer).await?;
        passed.set(Instant::now());
        if len == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..len]).await?;
    }
}

async fn idle(passed: &Cell<Instant>) {
    while passed.get().elapsed() < IDLE {
        sleep_until(passed.get() + IDLE).await;
    }
}
