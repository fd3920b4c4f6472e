//! What the tracer says to its guardian, a message each, over a socket, and the one word that comes back.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
        socketpair,
    },
};

use crate::error::{Context, Error, Result};

/// There is nothing to undo any more.
const FAREWELL: &str = "farewell";

/// A link has been deleted, or cannot be.
const DONE: &str = "done";

/// The longest message, in bytes, and the most descriptors that come with one.
const LONGEST: usize = 128;
const MOST: usize = 8;

/// What the tracer says.
#[derive(Debug)]
pub(super) enum Word {
    /// There is nothing to undo any more.
    Farewell,
    /// A link of this name and alias is to be deleted, while these are held.
    Delete { name: String, tag: String, held: Vec<OwnedFd> },
}

/// A way to talk, for the tracer and for its guardian.
///
/// # Errors
/// Where there are no sockets left.
pub(super) fn way() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .context("make", "a pair of sockets")
}

/// Says that there is nothing to undo any more.
pub(super) fn farewell(to: &impl AsFd) -> Result<()> {
    send(to, FAREWELL, &[])
}

/// Asks for a link to be deleted.
pub(super) fn delete(to: &impl AsFd, name: &str, tag: &str, held: &[BorrowedFd<'_>]) -> Result<()> {
    send(to, &format!("{name} {tag}"), held)
}

/// Says that the link has been deleted, or cannot be. That there is something to be heard is all that counts.
pub(super) fn done(to: &impl AsFd) -> Result<()> {
    send(to, DONE, &[])
}

/// Waits for the tracer's next word; none where it is gone, and whoever had its end of the way.
pub(super) fn hear(from: &impl AsFd) -> Result<Option<Word>> {
    let mut bytes = [0; LONGEST];
    let mut space = cmsg_space!([RawFd; MOST]);
    let mut held = Vec::new();
    let length = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let from = from.as_fd().as_raw_fd();
        let message = loop {
            match recvmsg::<()>(from, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
                // Who goes without having heard all is told to be gone before what was said last, once.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                received => break received.context("hear", "the tracer")?,
            }
        };
        for part in message.cmsgs().context("take", "descriptors")? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                // SAFETY: the kernel has made them for us.
                held.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        message.bytes
    };
    let text = std::str::from_utf8(&bytes[..length]).context("understand", "the tracer")?;
    match text {
        "" => Ok(None),
        FAREWELL => Ok(Some(Word::Farewell)),
        text => {
            let (name, tag) = text.split_once(' ').ok_or_else(|| Error::told("a word that nobody says"))?;
            Ok(Some(Word::Delete { name: name.to_owned(), tag: tag.to_owned(), held }))
        }
    }
}

fn send(to: &impl AsFd, text: &str, held: &[BorrowedFd<'_>]) -> Result<()> {
    let fds: Vec<RawFd> = held.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let parts = if fds.is_empty() { &rights[..0] } else { &rights };
    let to = to.as_fd().as_raw_fd();
    sendmsg::<()>(to, &[IoSlice::new(text.as_bytes())], parts, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .context("talk to", "the other process")
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
    };

    use nix::unistd::pipe;

    use super::*;

    #[test]
    fn words_come_as_they_were_said_and_the_end_after_them() {
        let (tracer, guardian) = way().expect("a way");
        delete(&tracer, "nsgw1", "nsntrace:0000000a", &[]).expect("said");
        farewell(&tracer).expect("said");
        // Which nobody hears.
        done(&guardian).expect("said");
        drop(tracer);
        match hear(&guardian).expect("heard") {
            Some(Word::Delete { name, tag, held }) => {
                assert_eq!((&name[..], &tag[..], held.len()), ("nsgw1", "nsntrace:0000000a", 0));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(hear(&guardian), Ok(Some(Word::Farewell))));
        assert!(matches!(hear(&guardian), Ok(None)));
        done(&guardian).expect_err("nobody is there");
    }

    #[test]
    fn what_is_handed_on_is_held() {
        let (tracer, guardian) = way().expect("a way");
        let (mut reader, writer) =
            pipe().map(|(reader, writer)| (File::from(reader), writer)).expect("a pipe");
        delete(&tracer, "nsgw1", "nsntrace:0000000a", &[writer.as_fd()]).expect("said");
        drop(writer);
        let Ok(Some(Word::Delete { held, .. })) = hear(&guardian) else { panic!("not heard") };
        let mut text = String::new();
        for fd in held {
            File::from(fd).write_all(b"held").expect("written");
        }
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "held");
    }
}
