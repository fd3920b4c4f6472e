//! The kernel's own nftables interface, for what is asked or taken away so often that a process of `nft` is too slow.

use std::io;

use nix::sys::socket::{
    setsockopt,
    sockopt::{RcvBufForce, SndBufForce},
};
use rtnetlink::{
    packet_core::{
        NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_NONREC, NLM_F_REQUEST, NetlinkBuffer, NlasIterator,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER},
};

use crate::error::{Context, Error, Result};

/// Somebody may change the rules while they are listed; then they are listed anew, so often at most.
const ATTEMPTS: usize = 20;

/// That they did, in the flags of a message.
const INTERRUPTED: u16 = 0x10;

/// Requests of `NFNL_SUBSYS_NFTABLES`, of linux/netfilter/nf_tables.h.
pub const GET_TABLES: u16 = 10 << 8 | 1;
pub const DELETE_TABLE: u16 = 10 << 8 | 2;
pub const GET_CHAINS: u16 = 10 << 8 | 4;
pub const DELETE_CHAIN: u16 = 10 << 8 | 5;
pub const GET_RULES: u16 = 10 << 8 | 7;
pub const DELETE_RULE: u16 = 10 << 8 | 8;
const GET_GENERATION: u16 = 10 << 8 | 16;

/// Around the messages of a transaction, with the subsystem that it is for.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYSTEM: u16 = 10;

/// The attribute of both a generation and of a transaction that is for it alone.
const GENERATION: u16 = 1;

/// Length of a netlink header and one of netfilter.
const HEADERS: usize = 20;

/// One request of a transaction.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is to be done.
    pub kind: u16,
    /// `NFPROTO_*`.
    pub family: u8,
    /// On what, as attributes.
    pub attributes: Vec<u8>,
}

/// Lists what `read` makes of the answers, in the network namespace of the calling thread. Nothing on a kernel without
/// nftables.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN, or where netlink does not answer.
pub fn list<T>(question: u16, read: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
    for _ in 0..ATTEMPTS {
        match open().and_then(|socket| dump(&socket, question, &read)) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) if is_unknown(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error).context("list", "what is in the packet filter"),
        }
    }
    Err(changed_again())
}

/// The kernel frees what was taken away when it is safe to, and the socket's end waits for that, while all else that is
/// about the packet filter waits for it, links too: who has something else to do does it before this is dropped.
#[derive(Debug)]
pub struct Afterwards {
    _socket: Option<Socket>,
}

/// Lists what `read` makes of the answers, and does in one transaction what `plan` makes of that. Nobody changes the
/// rules between the two, or it begins anew.
///
/// # Errors
/// As [`list`]; what the kernel says of the first request that it refuses, and then nothing is done.
pub fn change<T>(
    question: u16,
    read: impl Fn(&[u8]) -> Option<T>,
    plan: impl Fn(Vec<T>) -> Vec<Request>,
) -> Result<Afterwards> {
    for _ in 0..ATTEMPTS {
        let Seen { socket, generation, found } = match look(question, &read) {
            Ok(Some(seen)) => seen,
            Ok(None) => continue,
            Err(error) if is_unknown(&error) => return Ok(Afterwards { _socket: None }),
            Err(error) => return Err(error).context("list", "what is in the packet filter"),
        };
        let requests = plan(found);
        let done = if requests.is_empty() { Ok(()) } else { transact(&socket, &generation, &requests) };
        match done {
            Err(error) if error.raw_os_error() == Some(ERESTART) => {}
            done => {
                let afterwards = Afterwards { _socket: Some(socket) };
                return done.map(|()| afterwards).context("change", "the packet filter");
            }
        }
    }
    Err(changed_again())
}

/// Bytes of the kernel's answers that may wait: those to a transaction are all there before one of them can be read.
const ANSWERS: usize = 32 << 20;

/// What the kernel answers to a transaction for a generation that is over. The C library has no name for it.
const ERESTART: i32 = 85;

/// What is there, as seen by a socket; `generation` is that of the rules then.
struct Seen<T> {
    socket: Socket,
    generation: Vec<u8>,
    found: Vec<T>,
}

/// What `read` makes of what is there; none where somebody changed it meanwhile.
fn look<T>(question: u16, read: &impl Fn(&[u8]) -> Option<T>) -> io::Result<Option<Seen<T>>> {
    let socket = open()?;
    let generation = generation(&socket)?;
    let found = dump(&socket, question, read)?;
    Ok(found.map(|found| Seen { socket, generation, found }))
}

fn changed_again() -> Error {
    Error::told("the packet filter is changed again and again while it is looked at")
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT))
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    // Without it there is room for the answers to some hundred requests.
    let _ = setsockopt(&socket, RcvBufForce, &ANSWERS);
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// None where somebody changed the rules meanwhile.
fn dump<T>(socket: &Socket, question: u16, read: &impl Fn(&[u8]) -> Option<T>) -> io::Result<Option<Vec<T>>> {
    socket.send(&message(question, NLM_F_DUMP, 0, &[], 0), 0)?;
    let mut found = Vec::new();
    let mut is_whole = true;
    loop {
        let mut is_over = false;
        receive(socket, |message| {
            is_whole &= message.flags() & INTERRUPTED == 0;
            match i32::from(message.message_type()) {
                libc::NLMSG_ERROR => return Err(failure(message.payload())),
                libc::NLMSG_DONE => is_over = true,
                _ => found.extend(read(message.payload())),
            }
            Ok(())
        })?;
        if is_over {
            return Ok(is_whole.then_some(found));
        }
    }
}

/// The number of the present state of all rules.
fn generation(socket: &Socket) -> io::Result<Vec<u8>> {
    socket.send(&message(GET_GENERATION, 0, 0, &[], 0), 0)?;
    let mut generation = None;
    receive(socket, |message| match i32::from(message.message_type()) {
        libc::NLMSG_ERROR => Err(failure(message.payload())),
        _ => {
            let attributes = message.payload().get(4..).unwrap_or_default();
            generation = attribute(attributes, GENERATION).map(ToOwned::to_owned);
            Ok(())
        }
    })?;
    generation.ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))
}

/// Each request is acknowledged, the refused ones too; a transaction for another generation is as a whole. Nothing is removed
/// together with what is still in it.
fn transact(socket: &Socket, generation: &[u8], requests: &[Request]) -> io::Result<()> {
    let mut bytes = message(BATCH_BEGIN, 0, SUBSYSTEM, &encoded(GENERATION, generation), 0);
    for (Request { kind, family, attributes }, number) in requests.iter().zip(1..) {
        let mut request = message(*kind, NLM_F_ACK | NLM_F_NONREC, 0, attributes, number);
        request[16] = *family;
        bytes.extend(request);
    }
    bytes.extend(message(BATCH_END, 0, SUBSYSTEM, &[], 0));
    // Without it there is room for some hundred requests; the kernel counts some bytes of its own too.
    let _ = setsockopt(socket, SndBufForce, &(2 * bytes.len()));
    socket.send(&bytes, 0)?;
    let mut left = requests.len();
    let mut result = Ok(());
    while left > 0 {
        receive(socket, |message| {
            let outcome = match failure(message.payload()) {
                error if error.raw_os_error() == Some(0) => Ok(()),
                error => Err(error),
            };
            left = if message.sequence_number() == 0 { 0 } else { left.saturating_sub(1) };
            if result.is_ok() {
                result = outcome;
            }
            Ok(())
        })?;
    }
    result
}

fn receive(socket: &Socket, mut take: impl FnMut(&NetlinkBuffer<&[u8]>) -> io::Result<()>) -> io::Result<()> {
    let (bytes, _) = socket.recv_from_full()?;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
        let length = message.length() as usize;
        take(&message)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// A header of netlink and one of netfilter, for all families, and what follows them.
fn message(kind: u16, flags: u16, resource: u16, attributes: &[u8], number: u32) -> Vec<u8> {
    let mut bytes = vec![0; HEADERS];
    bytes.extend(attributes);
    let length = u32::try_from(bytes.len()).expect("some hundred bytes");
    let mut message = NetlinkBuffer::new(&mut bytes);
    message.set_length(length);
    message.set_message_type(kind);
    message.set_flags(NLM_F_REQUEST | flags);
    message.set_sequence_number(number);
    bytes[18..HEADERS].copy_from_slice(&resource.to_be_bytes());
    bytes
}

fn failure(payload: &[u8]) -> io::Error {
    let code = payload.first_chunk().map_or(libc::EPROTO, |code| -i32::from_ne_bytes(*code));
    io::Error::from_raw_os_error(code)
}

/// An attribute as it goes into a request.
pub fn encoded(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(NLA_HEADER_SIZE + value.len()).expect("names and numbers");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The first attribute of that kind.
pub fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    self::attributes(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Attributes and their kinds.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).filter_map(|found| {
        let (kind, length) = (found.kind(), found.value_length());
        // It does not tell where it ends by itself.
        Some((kind, found.into_inner().get(NLA_HEADER_SIZE..)?.get(..length)?))
    })
}

/// A number of 32 bits, as the kernel tells it here.
pub fn number(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

/// A text, which ends with a zero.
pub fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()
}
