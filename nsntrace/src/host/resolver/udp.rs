//! Questions by UDP.

use std::{cell::RefCell, net::IpAddr, rc::Rc, sync::Arc};

use tokio::{net::UdpSocket, sync::Semaphore, task::spawn_local};

use super::{
    exchange::{MAX_DATAGRAM, ask, is_query},
    relay::PAUSE,
    upstreams::Upstreams,
};

/// Answers what `asker` asks, so many questions at once. Those beyond wait in the socket, which drops what it cannot
/// hold. Never returns.
pub async fn serve(socket: UdpSocket, asker: IpAddr, upstreams: Rc<RefCell<Upstreams>>, at_once: usize) {
    let socket = Rc::new(socket);
    let slots = Arc::new(Semaphore::new(at_once));
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let slot = slots.clone().acquire_owned().await.expect("never closed");
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let query = &buffer[..len];
        if from.ip() != asker || !is_query(query) {
            continue;
        }
        let (query, socket, servers) = (Rc::from(query), socket.clone(), upstreams.borrow_mut().now());
        spawn_local(async move {
            if let Some(answer) = ask(query, servers).await {
                // An answer that cannot be sent is one that was lost on the way.
                let _ = socket.send_to(&answer, from).await;
            }
            drop(slot);
        });
    }
}
