//! One question and its answer, as RFC 1035 has them.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::Interest,
    net::UdpSocket,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

/// Length of a header, in bytes.
const HEADER: usize = 12;

/// The largest datagram, in bytes.
pub const MAX_DATAGRAM: usize = 65535;

/// A server that is silent for so long is not asked alone any more. Well below what a program waits for its answer, so
/// that it does not notice.
const STEP: Duration = Duration::from_secs(1);

/// How long an answer is waited for: who asks has asked again by then, or given up.
const AT_MOST: Duration = Duration::from_secs(10);

/// Response codes of a server that cannot answer while another may: SERVFAIL, NOTIMP, REFUSED.
const UNABLE: [u8; 3] = [2, 4, 5];

/// Whether it is a question.
pub fn is_query(message: &[u8]) -> bool {
    message.len() >= HEADER && message[2] & 0x80 == 0
}

/// Whether it answers the question: of its id, and from the server, since the socket is connected to that.
fn is_answer(message: &[u8], query: &[u8]) -> bool {
    message.len() >= HEADER && message[..2] == query[..2] && message[2] & 0x80 != 0
}

fn is_unable(answer: &[u8]) -> bool {
    UNABLE.contains(&(answer[3] & 0x0f))
}

/// The answer that there is none: the question with the response code SERVFAIL.
fn failure(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | 2;
    answer
}

/// What holds of a question and of what comes back, whatever they are.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check(question: &[u8], answer: &[u8]) {
    if !is_query(question) {
        return;
    }
    let failure = failure(question);
    assert!(is_answer(&failure, question) && is_unable(&failure) && !is_query(&failure));
    if is_answer(answer, question) {
        assert!(!is_query(answer));
        is_unable(answer);
    }
}

/// What became of asking one server.
enum Outcome {
    Answer(Vec<u8>),
    /// The host says that nobody is there.
    Unreachable,
    Silence,
}

/// Asks the servers in turn, the next one where one is silent, absent or unable. None where all are silent: then the
/// program's patience decides, as it would without us.
pub async fn ask(query: Rc<[u8]>, servers: Vec<SocketAddr>) -> Option<Vec<u8>> {
    let deadline = Instant::now() + AT_MOST;
    let mut servers = servers.into_iter();
    let mut asked = JoinSet::new();
    let mut second_best = None;
    loop {
        match servers.next() {
            Some(server) => drop(asked.spawn_local(ask_one(query.clone(), server, deadline))),
            None if asked.is_empty() => return second_best,
            None => {}
        }
        match timeout(STEP, asked.join_next()).await {
            Ok(Some(Ok(Outcome::Answer(answer)))) if !is_unable(&answer) => return Some(answer),
            Ok(Some(Ok(Outcome::Answer(answer)))) => second_best = Some(answer),
            Ok(Some(Ok(Outcome::Unreachable))) => second_best = second_best.or_else(|| Some(failure(&query))),
            // A silent one, or time for the next one.
            _ => {}
        }
    }
}

async fn ask_one(query: Rc<[u8]>, server: SocketAddr, deadline: Instant) -> Outcome {
    match timeout_at(deadline, exchange(&query, server)).await {
        Ok(Ok(answer)) => Outcome::Answer(answer),
        Ok(Err(_)) => Outcome::Unreachable,
        Err(_) => Outcome::Silence,
    }
}

/// Each question has a socket of its own: the kernel chooses a port that nobody can know, and takes nothing from
/// anybody but the server.
async fn exchange(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    loop {
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() {
            refusal(&socket)?;
        }
        // Not before something is there: who waits holds no memory for it.
        let mut answer = Vec::with_capacity(MAX_DATAGRAM);
        match socket.try_recv_buf(&mut answer) {
            Ok(_) if is_answer(&answer, query) => return Ok(answer),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

/// The error that ICMP told of, which does not count as something to read. Ok where there is none any more.
fn refusal(socket: &UdpSocket) -> io::Result<()> {
    let take = || -> io::Result<()> { Err(socket.take_error()?.unwrap_or(ErrorKind::WouldBlock.into())) };
    match socket.try_io(Interest::ERROR, take) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: [u8; HEADER] = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];

    #[test]
    fn questions_and_their_answers() {
        assert!(is_query(&QUERY) && !is_query(&QUERY[..11]) && !is_query(&[]));
        let answer = failure(&QUERY);
        assert!(is_answer(&answer, &QUERY) && is_unable(&answer) && !is_query(&answer));
        assert!(!is_answer(&QUERY, &QUERY), "a question is no answer");
        let mut foreign = answer.clone();
        foreign[1] ^= 1;
        assert!(!is_answer(&foreign, &QUERY), "the id is another's");
    }

    #[test]
    fn names_that_do_not_exist_are_an_answer() {
        let mut answer = failure(&QUERY);
        answer[3] = 0x80 | 3;
        assert!(!is_unable(&answer));
    }
}
