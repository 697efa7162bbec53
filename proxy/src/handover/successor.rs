//! The new process' side: its standard input leads to the process that started it.

use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use rustix::net::sockopt::socket_acceptconn;

use super::channel::Channel;
use super::messages::Step;
use super::{ANSWER_TIMEOUT, HandoverError};

pub struct Successor {
    channel: Channel,
    sockets: Vec<TcpListener>,
    pub predecessor: u32,
}

impl Successor {
    /// Receives the listening sockets. Nothing is taken from the predecessor by that.
    pub fn greet() -> std::result::Result<Self, HandoverError> {
        let channel = std::io::stdin().as_fd().try_clone_to_owned().map(Channel::from);
        channel.and_then(Self::receive).map_err(HandoverError::NoPredecessor)
    }

    fn receive(channel: Channel) -> Result<Self> {
        channel.set_timeout(ANSWER_TIMEOUT)?;
        let (step, sockets) = channel.receive()?;
        let Step::Sockets { pid } = step else {
            return Err(Error::new(ErrorKind::InvalidData, format!("{step:?} instead of sockets")));
        };
        if !sockets.iter().all(|socket| socket_acceptconn(socket).unwrap_or(false)) {
            return Err(Error::new(ErrorKind::InvalidData, "a socket that does not listen"));
        }
        Ok(Self { channel, sockets: sockets.into_iter().map(TcpListener::from).collect(), predecessor: pid })
    }

    /// The predecessor's socket of that address. Those that nobody asks for are closed with the predecessor.
    pub fn socket(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.sockets.iter().position(|socket| socket.local_addr().is_ok_and(|bound| bound == address))?;
        Some(self.sockets.swap_remove(at))
    }

    /// Tells the predecessor that this process serves. It goes on accepting until it is told of the names as well.
    pub fn relieve(self) -> std::result::Result<Relief, HandoverError> {
        let asked = self.channel.send(&Step::Serving, &[]).and_then(|()| self.channel.receive());
        match asked.map_err(HandoverError::NotRelieved)? {
            (Step::Yours, _) => Ok(Relief(self.channel)),
            (other, _) => {
                let says = format!("it answered {other:?}");
                Err(HandoverError::NotRelieved(Error::new(ErrorKind::InvalidData, says)))
            }
        }
    }
}

/// The predecessor waits for this to be told before it says that the upgrade is done, and stops.
#[must_use]
pub struct Relief(Channel);

impl Relief {
    /// After the names were moved, or could not be.
    pub fn named(self) {
        // It waits no longer than a moment, and may be of a version that doesn't at all.
        let _ = self.0.send(&Step::Named, &[]);
    }
}
