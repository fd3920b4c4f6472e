//! Servers in the fake internet that speak TLS, with a certificate of their own making.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::{Lab, Running, SERVER_ADDRESS, Server};

/// Which versions of TLS a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersions {
    /// TLS 1.2 and no other.
    Only12,
    /// TLS 1.3 and no other.
    Only13,
}

impl TlsVersions {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Only12, Self::Only13];

    /// As Python's `ssl.TLSVersion` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Only12 => "TLSv1_2",
            Self::Only13 => "TLSv1_3",
        }
    }
}

/// A server that has a file `word.txt`.
#[derive(Debug)]
pub struct Tls {
    /// Where the file is.
    pub url: String,
    /// What is in it.
    pub word: &'static str,
    _server: Server,
}

/// What both servers serve.
const WORD: &str = "the word behind the seal";

/// Arguments: address, port, certificate with key, name of the only version.
pub(crate) const HTTPS: &str = "
import http.server, ssl, sys
address, port, certificate, version = sys.argv[1:]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate)
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
server = http.server.ThreadingHTTPServer((address, int(port)), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
";

impl Lab {
    /// A certificate with its key, in one file.
    pub fn certificate(&self) -> Result<PathBuf> {
        let path = self.dir().join("certificate.pem");
        if !path.exists() {
            let made = path.display().to_string();
            let words = [
                &["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"][..],
                &[
                    "-nodes",
                    "-days",
                    "30",
                    "-subj",
                    "/CN=www.example.test",
                    "-keyout",
                    &made,
                    "-out",
                    "cert.pem",
                ],
            ];
            let done = self.internet(words.concat())?.run()?.exited(0)?;
            let both = [fs::read(&path)?, fs::read(done.dir.join("cert.pem"))?].concat();
            fs::write(&path, both)?;
        }
        Ok(path)
    }

    /// Starts a server of HTTP/1.1 over TLS.
    pub fn https(&self, port: u16, versions: TlsVersions) -> Result<Tls> {
        let certificate = self.certificate()?.display().to_string();
        let arguments = [SERVER_ADDRESS, &port.to_string(), &certificate, versions.name()].map(String::from);
        self.tls_server(port, [&["python3", "-c", HTTPS].map(String::from)[..], &arguments].concat())
    }

    /// The command of such a server, for the fake host: its address, port, certificate and versions follow.
    pub fn https_command() -> [&'static str; 3] {
        ["python3", "-c", HTTPS]
    }

    /// Starts a server of HTTP/2 over TLS.
    pub fn http2(&self, port: u16) -> Result<Tls> {
        let certificate = self.certificate()?.display().to_string();
        let port_word = port.to_string();
        let words =
            ["nghttpd", "--address", SERVER_ADDRESS, "--htdocs", ".", &port_word, &certificate, &certificate];
        self.tls_server(port, words.map(String::from).to_vec())
    }

    fn tls_server(&self, port: u16, words: Vec<String>) -> Result<Tls> {
        let job = self.internet(words)?;
        fs::write(job.dir().join("word.txt"), WORD)?;
        let process: Running = job.spawn()?;
        let server = self.listening(process, SERVER_ADDRESS, port)?;
        Ok(Tls { url: format!("https://{SERVER_ADDRESS}:{port}/word.txt"), word: WORD, _server: server })
    }
}
