//! `latchkey-proxy upgrade`: asks for a new process, and believes only what it sees.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::messages::{Owner, Reply, Request};
use super::{ANSWER_TIMEOUT, HandoverError, UPGRADE_TIMEOUT, desk_path};
use crate::config::Config;

/// For the new process to take the desk, after it was told that all is its own.
const DESK_WITHIN: Duration = Duration::from_secs(10);

/// Replaces the running process by a new one. What is to be told, once the new one is seen to own the sockets.
pub fn upgrade(config: &Config) -> Result<String, HandoverError> {
    let desk = desk_path(&config.data_dir);
    let failed = |why: std::io::Error| {
        HandoverError::NotUpgraded(format!("no latchkey-proxy answers on {}: {why}", desk.display()))
    };
    let before = who(&desk).map_err(failed)?;
    let reply = ask(&desk, &Request::Upgrade, UPGRADE_TIMEOUT + ANSWER_TIMEOUT).map_err(failed)?;
    let pid = match reply {
        (Reply::Upgraded { pid }, _) => pid,
        (Reply::Failed { why }, _) => return Err(HandoverError::NotUpgraded(why)),
        (other, _) => return Err(HandoverError::Unverified(format!("unexpected answer {other:?}"))),
    };
    let until = Instant::now() + DESK_WITHIN;
    let after = loop {
        match who(&desk) {
            Ok(owner) if owner.pid == pid => break owner,
            seen if Instant::now() > until => {
                let says = format!("process {pid} was to take over, but {} leads to {seen:?}", desk.display());
                return Err(HandoverError::Unverified(says));
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let wanted: Vec<_> = config.listeners.iter().map(|listener| (listener.name.as_str(), listener.address)).collect();
    compare(&before, &after, &wanted).map_err(HandoverError::Unverified)
}

fn ask(desk: &Path, request: &Request, timeout: Duration) -> std::io::Result<(Reply, u32)> {
    let channel = Channel::connect(desk)?;
    channel.set_timeout(timeout)?;
    channel.send(request, &[])?;
    let pid = u32::try_from(channel.peer()?.pid.as_raw_nonzero().get()).unwrap_or(0);
    Ok((channel.receive()?.0, pid))
}

/// The process must be the one that the kernel sees behind the socket.
fn who(desk: &Path) -> std::io::Result<Owner> {
    match ask(desk, &Request::Who, ANSWER_TIMEOUT)? {
        (Reply::Owner(owner), pid) if owner.pid == pid => Ok(owner),
        (Reply::Failed { why }, _) => Err(std::io::Error::other(why)),
        (other, pid) => Err(std::io::Error::other(format!("process {pid} says {other:?}"))),
    }
}

fn compare(before: &Owner, after: &Owner, wanted: &[(&str, SocketAddr)]) -> Result<String, String> {
    let mut told = format!(
        "process {} ({}) serves in place of process {} ({}), which finishes its open connections:",
        after.pid, after.version, before.pid, before.version
    );
    for (name, address) in wanted {
        let Some(owned) = after.listeners.iter().find(|owned| owned.name == *name && owned.address == *address) else {
            return Err(format!("process {} does not listen on {address} (`{name}`)", after.pid));
        };
        let how = match before.listeners.iter().find(|owned| owned.address == *address) {
            Some(old) if old.inode == owned.inode => "handed over",
            Some(old) => {
                let says = "the socket of before was not handed over";
                return Err(format!("{address} (`{name}`): {says} (inode {}, now {})", old.inode, owned.inode));
            }
            None => "new",
        };
        let _ = write!(told, "\n  {name} {address}: {how}");
    }
    for gone in before.listeners.iter().filter(|old| wanted.iter().all(|(_, address)| *address != old.address)) {
        let _ = write!(told, "\n  {} {}: closed", gone.name, gone.address);
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::super::messages::Owned;
    use super::*;

    fn owner(pid: u32, listeners: &[(&str, u16, u64)]) -> Owner {
        let owned = |&(name, port, inode): &(&str, u16, u64)| Owned { name: name.into(), address: at(port), inode };
        Owner { pid, version: "1.0.0".into(), listeners: listeners.iter().map(owned).collect() }
    }

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn tells_what_was_handed_over_made_and_closed() {
        let before = owner(1, &[("https", 443, 10), ("old", 8080, 11)]);
        let after = owner(2, &[("https", 443, 10), ("http", 80, 12)]);
        let told = compare(&before, &after, &[("https", at(443)), ("http", at(80))]).unwrap();
        assert_eq!(
            told,
            "process 2 (1.0.0) serves in place of process 1 (1.0.0), which finishes its open connections:\n  \
             https 127.0.0.1:443: handed over\n  http 127.0.0.1:80: new\n  old 127.0.0.1:8080: closed"
        );
    }

    #[test]
    fn is_not_satisfied_with_a_missing_or_another_socket() {
        let before = owner(1, &[("https", 443, 10)]);
        let missing = compare(&before, &owner(2, &[]), &[("https", at(443))]).unwrap_err();
        assert_eq!(missing, "process 2 does not listen on 127.0.0.1:443 (`https`)");
        let other = compare(&before, &owner(2, &[("https", 443, 99)]), &[("https", at(443))]).unwrap_err();
        assert!(other.contains("inode 10, now 99"), "{other}");
    }
}
