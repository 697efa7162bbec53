//! Messages between processes of one host, with file descriptors (SCM_RIGHTS). A message arrives whole or not at all.

use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, UCred, accept_with, bind, connect,
    listen, recvmsg, sendmsg, socket_with, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::LISTENERS_MAX;

const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const WAITING_MAX: i32 = 16;

pub(super) struct Channel(OwnedFd);

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

impl Channel {
    pub(super) fn pair() -> Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    pub(super) fn connect(path: &Path) -> Result<Self> {
        let socket = unix_socket()?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// How long one message may take, either way.
    pub(super) fn set_timeout(&self, timeout: Duration) -> Result<()> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(timeout))?;
        Ok(set_socket_timeout(&self.0, Timeout::Send, Some(timeout))?)
    }

    /// The process at the other end, as the kernel knows it.
    pub(super) fn peer(&self) -> Result<UCred> {
        Ok(socket_peercred(&self.0)?)
    }

    pub(super) fn send(&self, message: &impl Serialize, sockets: &[BorrowedFd<'_>]) -> Result<()> {
        if sockets.len() > LISTENERS_MAX {
            let says = format!("{} sockets, at most {LISTENERS_MAX} can be handed over", sockets.len());
            return Err(Error::new(ErrorKind::InvalidInput, says));
        }
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
            return Err(Error::other("the sockets do not fit into a message"));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).map_err(timed_out)?;
        Ok(())
    }

    pub(super) fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>)> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LISTENERS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.0, parts, &mut control, RecvFlags::CMSG_CLOEXEC).map_err(timed_out)?;
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        });
        let sockets = rights.flatten().collect();
        if received.bytes == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the process at the other end has gone"));
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(Error::new(ErrorKind::InvalidData, format!("a message over {MESSAGE_BYTES_MAX} bytes")));
        }
        Ok((serde_json::from_slice(&bytes[..received.bytes])?, sockets))
    }
}

fn timed_out(error: rustix::io::Errno) -> Error {
    match error {
        rustix::io::Errno::AGAIN => Error::new(ErrorKind::TimedOut, "no answer in time"),
        other => other.into(),
    }
}

fn unix_socket() -> Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Where the running process can be asked.
pub struct Desk(OwnedFd);

impl Desk {
    pub(super) fn bind(path: &Path) -> Result<Self> {
        let socket = unix_socket()?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        // Nobody knows its name yet: it gets its mode before it gets its place.
        listen(&socket, WAITING_MAX)?;
        Ok(Self(socket))
    }

    /// Whether a process answers there.
    pub(super) fn answers(path: &Path) -> bool {
        Channel::connect(path).is_ok()
    }

    pub(super) fn accept(&self) -> Result<Channel> {
        Ok(Channel(accept_with(self.0.as_fd(), SocketFlags::CLOEXEC)?))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::messages::Step;
    use super::*;

    #[test]
    fn sockets_arrive_with_their_message() {
        let (one, other) = Channel::pair().unwrap();
        let sockets: Vec<_> = (0..LISTENERS_MAX).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        one.send(&Step::Sockets { pid: 7 }, &borrowed).unwrap();
        one.send(&Step::Yours, &[]).unwrap();
        let (step, received) = other.receive::<Step>().unwrap();
        assert!(matches!(step, Step::Sockets { pid: 7 }));
        let addresses = |sockets: Vec<TcpListener>| -> Vec<_> {
            sockets.into_iter().map(|socket| socket.local_addr().unwrap()).collect()
        };
        let received = addresses(received.into_iter().map(TcpListener::from).collect());
        assert_eq!(received, addresses(sockets));
        let (step, none) = other.receive::<Step>().unwrap();
        assert!(matches!(step, Step::Yours) && none.is_empty());
    }

    #[test]
    fn refuses_to_send_one_socket_too_many() {
        let (one, _other) = Channel::pair().unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = one.send(&Step::Yours, &vec![socket.as_fd(); LISTENERS_MAX + 1]).unwrap_err();
        assert_eq!(error.to_string(), "65 sockets, at most 64 can be handed over");
    }

    #[test]
    fn tells_an_end_from_a_silence_and_from_nonsense() {
        let (one, other) = Channel::pair().unwrap();
        other.set_timeout(Duration::from_millis(10)).unwrap();
        assert_eq!(other.receive::<Step>().unwrap_err().kind(), ErrorKind::TimedOut);
        one.send(&"nonsense", &[]).unwrap();
        assert_eq!(other.receive::<Step>().unwrap_err().kind(), ErrorKind::InvalidData);
        drop(one);
        assert_eq!(other.receive::<Step>().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
