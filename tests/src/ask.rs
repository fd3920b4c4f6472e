//! A server that tells who asked, and a client that asks, both for TCP and UDP.

use anyhow::Result;

use crate::{Job, Running};

/// Listens on a port at addresses, says `listening`, and answers each who asks with his address.
const ANSWER: &str = "
import selectors, socket, sys
port = int(sys.argv[1])
ready = selectors.DefaultSelector()
for address in sys.argv[2:]:
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        server = socket.socket(family, kind)
        if kind == socket.SOCK_STREAM:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((address, port))
        if kind == socket.SOCK_STREAM:
            server.listen()
        ready.register(server, selectors.EVENT_READ)
print('listening', flush=True)
while True:
    for key, _ in ready.select():
        if key.fileobj.type == socket.SOCK_STREAM:
            connection, who = key.fileobj.accept()
            connection.recv(100)
            connection.sendall(who[0].encode())
            connection.close()
        else:
            _, who = key.fileobj.recvfrom(100)
            key.fileobj.sendto(who[0].encode(), who)
";

/// Asks, and prints the answer; or the name of the error, after so many seconds at most.
const ASK: &str = "
import socket, sys
transport, address, port, patience = sys.argv[1:]
kind = socket.SOCK_STREAM if transport == 'tcp' else socket.SOCK_DGRAM
try:
    client = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, kind)
    client.settimeout(float(patience))
    client.connect((address, int(port)))
    client.sendall(b'who?')
    print(client.recv(100).decode())
except OSError as error:
    print(type(error).__name__)
";

/// The words of a command that answers on `port` at these addresses, by TCP and UDP.
pub fn answer<'a>(port: &'a str, addresses: &[&'a str]) -> Vec<&'a str> {
    [&["python3", "-c", ANSWER, port], addresses].concat()
}

/// The words of a command that asks there; `transport` is `tcp` or `udp`.
pub fn ask<'a>(transport: &'a str, address: &'a str, port: &'a str) -> Vec<&'a str> {
    vec!["python3", "-c", ASK, transport, address, port, "20"]
}

/// The same where no answer is awaited, and not even a refusal.
pub fn ask_in_vain<'a>(transport: &'a str, address: &'a str, port: &'a str) -> Vec<&'a str> {
    vec!["python3", "-c", ASK, transport, address, port, "2"]
}

/// Starts a command that answers, and waits until it does.
pub fn start(job: Job) -> Result<Running> {
    let mut running = job.spawn()?;
    running.says("listening")?;
    Ok(running)
}
