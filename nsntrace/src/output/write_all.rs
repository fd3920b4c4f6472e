//! The writing of pieces of memory, to a file or a pipe.

use std::{
    fs::File,
    io::{self, IoSlice, Write},
    os::fd::AsFd,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Writes as much of these pieces as the file takes: how much, and why not all.
pub(super) fn write_all(mut file: &File, mut pieces: &mut [IoSlice<'_>]) -> (usize, io::Result<()>) {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut written = 0;
    while written < length {
        match file.write_vectored(pieces) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(some) => {
                written += some;
                IoSlice::advance_slices(&mut pieces, some);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else who has the pipe does not want to wait for it; we do.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(file),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

fn wait_for_room(file: &File) {
    // What is wrong with it, the next write tells.
    let _ = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
}
