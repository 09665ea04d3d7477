//! One connection: packets with descriptors attached.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::wire::PACKET_MAX_BYTES;

/// The most descriptors in one packet.
const ATTACHED_MAX: usize = 4;

/// One packet and what came with it.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) attached: Vec<OwnedFd>,
}

/// What one look at a connection finds.
#[derive(Debug)]
pub(crate) enum Received {
    Packet(Packet),
    /// Nothing yet.
    Nothing,
    /// The other side is gone.
    End,
}

/// Both ends of a new connection. Neither is kept by a program that is executed.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Sends one packet, whole or not at all. Never blocks.
///
/// # Errors
/// `EPIPE` when the other side is gone, `EAGAIN` when it does not read.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], attached: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ATTACHED_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !attached.is_empty() && !control.push(SendAncillaryMessage::ScmRights(attached)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::io::retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags))?;
    Ok(())
}

/// Takes one packet if there is one. Never blocks.
///
/// # Errors
/// `EMSGSIZE` for one that is too long, `EMFILE` when this process has no room for what is attached (the packet is gone
/// then), and what the kernel answers.
pub(crate) fn receive(socket: impl AsFd) -> Result<Received, Errno> {
    let mut bytes = vec![0; PACKET_MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ATTACHED_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
    });
    let received = match received {
        Ok(received) => received,
        Err(Errno::AGAIN) => return Ok(Received::Nothing),
        Err(Errno::CONNRESET) => return Ok(Received::End),
        Err(errno) => return Err(errno),
    };
    let mut attached = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            attached.extend(fds);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        // There is room for all that is ever attached: what was missing is a free descriptor.
        return Err(Errno::MFILE);
    }
    if received.bytes == 0 {
        return Ok(Received::End);
    }
    bytes.truncate(received.bytes);
    Ok(Received::Packet(Packet { bytes, attached }))
}

/// Takes one packet, waiting for it at most this long.
///
/// # Errors
/// `TimedOut`, `UnexpectedEof` when the other side is gone, and what the kernel answers.
pub(crate) fn receive_within(socket: &OwnedFd, bound: Duration) -> io::Result<Packet> {
    let deadline = Instant::now() + bound;
    loop {
        match receive(socket)? {
            Received::Packet(packet) => return Ok(packet),
            Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            Received::Nothing => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        wait(&mut [PollFd::new(socket, PollFlags::IN)], Some(left))?;
    }
}

/// Waits until one of these is ready or the time is over; an interruption counts as time.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn wait(fds: &mut [PollFd<'_>], bound: Option<Duration>) -> Result<(), Errno> {
    let bound = bound.map(|bound| {
        Timespec::try_from(bound).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        })
    });
    match poll(fds, bound.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
