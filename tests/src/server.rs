//! Real servers in the fake internet.

use std::fs;

use anyhow::{Context, Result};

use crate::{Lab, Running, SERVER_ADDRESS, SERVER_ADDRESS6, SOON, until};

/// A server that listens. It is ended when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Running,
}

/// A web server with one file of 3 MB, `data.bin`.
#[derive(Debug)]
pub struct Web {
    /// Where the file is.
    pub url: String,
    /// What is in it: no two parts are alike.
    pub body: Vec<u8>,
    server: Server,
}

impl Web {
    /// Its log, a line a request that begins with the address of who asked.
    pub fn log(&self) -> Result<String> {
        self.server.process.stderr()
    }
}

const UDP_ECHO: &str = "
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
echo = socket.socket(family, socket.SOCK_DGRAM)
echo.bind((sys.argv[1], int(sys.argv[2])))
while True:
    data, sender = echo.recvfrom(65535)
    echo.sendto(data, sender)
";

/// Never reads: what its buffer does not hold, the kernel drops, and no ICMP error comes back.
const UDP_SINK: &str = "
import signal, socket, sys
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.bind((sys.argv[1], int(sys.argv[2])))
signal.pause()
";

/// It knows nothing of the machine that it runs on.
const DNSMASQ: [&str; 6] = [
    "--keep-in-foreground",
    "--conf-file=/dev/null",
    "--no-resolv",
    "--no-hosts",
    "--pid-file",
    "--user=root",
];

impl Lab {
    /// Starts a web server on port 80.
    pub fn web(&self) -> Result<Web> {
        self.web_at(SERVER_ADDRESS, &format!("http://{SERVER_ADDRESS}/data.bin"))
    }

    /// The same in IPv6.
    pub fn web6(&self) -> Result<Web> {
        self.web_at(SERVER_ADDRESS6, &format!("http://[{SERVER_ADDRESS6}]/data.bin"))
    }

    fn web_at(&self, address: &str, url: &str) -> Result<Web> {
        let body = noise(3_000_000);
        let job = self.internet(["python3", "-m", "http.server", "--bind", address, "80"])?;
        fs::write(job.dir().join("data.bin"), &body)?;
        let server = Server { process: job.spawn()? };
        self.wait_for_port(address, 80)?;
        Ok(Web { url: url.into(), body, server })
    }

    /// Starts a server that sends every datagram back.
    pub fn udp_echo(&self, port: u16) -> Result<Server> {
        self.serve(port, &["python3", "-c", UDP_ECHO, SERVER_ADDRESS, &port.to_string()])
    }

    /// The same in IPv6.
    pub fn udp_echo6(&self, port: u16) -> Result<Server> {
        let process = self.internet(["python3", "-c", UDP_ECHO, SERVER_ADDRESS6, &port.to_string()])?;
        let server = Server { process: process.spawn()? };
        self.wait_for_port(SERVER_ADDRESS6, port)?;
        Ok(server)
    }

    /// Starts a server that takes datagrams and never answers.
    pub fn udp_sink(&self, port: u16) -> Result<Server> {
        self.serve(port, &["python3", "-c", UDP_SINK, SERVER_ADDRESS, &port.to_string()])
    }

    /// Starts a name server that knows `www.example.test`, at the servers' address, and nothing else.
    pub fn name_server(&self) -> Result<Server> {
        self.name_server_with(SERVER_ADDRESS, &[&format!("--listen-address={SERVER_ADDRESS}")])
    }

    /// The same, where these options of dnsmasq say. `address` is one on which it listens then.
    pub fn name_server_with(&self, address: &str, options: &[&str]) -> Result<Server> {
        let record = format!("--host-record=www.example.test,{SERVER_ADDRESS}");
        let words = [&["dnsmasq"], &DNSMASQ[..], &["--bind-interfaces", &record], options].concat();
        self.serve_at(address, 53, &words)
    }

    /// Starts a dnsmasq with these options on the fake host, and waits until it listens on `address`.
    pub fn host_name_server(&self, address: &str, options: &[&str]) -> Result<Server> {
        let process = self.host([&["dnsmasq"], &DNSMASQ[..], options].concat())?.spawn()?;
        self.wait_on_host(53, address).with_context(|| process.stderr().unwrap_or_default())?;
        Ok(Server { process })
    }

    /// Starts a server written in Python on the fake host, and waits until it listens on this address and port.
    pub fn host_python(&self, script: &str, address: &str, port: u16) -> Result<Server> {
        let process = self.host(["python3", "-c", script, address, &port.to_string()])?.spawn()?;
        self.wait_on_host(port, address).with_context(|| process.stderr().unwrap_or_default())?;
        Ok(Server { process })
    }

    /// Starts an iperf3 server on its usual port.
    pub fn iperf(&self) -> Result<Server> {
        self.serve(5201, &["iperf3", "--server", "--bind", SERVER_ADDRESS])
    }

    fn serve(&self, port: u16, words: &[&str]) -> Result<Server> {
        self.serve_at(SERVER_ADDRESS, port, words)
    }

    fn serve_at(&self, address: &str, port: u16, words: &[&str]) -> Result<Server> {
        self.listening(self.internet(words)?.spawn()?, address, port)
    }

    /// The server that this process is, when it listens.
    pub(crate) fn listening(&self, process: Running, address: &str, port: u16) -> Result<Server> {
        self.wait_for_port(address, port).with_context(|| process.stderr().unwrap_or_default())?;
        Ok(Server { process })
    }

    fn wait_on_host(&self, port: u16, address: &str) -> Result<()> {
        until(&format!("a server on {address} port {port}"), SOON, || {
            let listening = self.host(["ss", "-Hlnu", &format!("sport = :{port}")])?.output()?;
            Ok(listening.contains(&format!("{address}:{port} ")).then_some(()))
        })
    }

    fn wait_for_port(&self, address: &str, port: u16) -> Result<()> {
        let address = if address.contains(':') { format!("[{address}]") } else { address.into() };
        until(&format!("a server on port {port}"), SOON, || {
            let listening = self.internet(["ss", "-Hlntu", &format!("src {address}:{port}")])?.output()?;
            Ok((!listening.is_empty()).then_some(()))
        })
    }
}

/// Bytes of a seeded xorshift generator.
fn noise(len: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
