//! Who is at the other end of the admin socket.

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use contract::admin::Author;
use tokio::net::UnixListener;

/// As the kernel says; none where the other end is gone already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

impl Peer {
    /// `by`: who the caller says to act for.
    pub(super) fn author(self, by: Option<String>) -> Author {
        let users = || std::fs::read_to_string("/etc/passwd").ok();
        let user = self.uid.and_then(|uid| name_of(uid, &users()?));
        Author { uid: self.uid, user, by }
    }
}

/// passwd(5): `name:password:uid:…`
fn name_of(uid: u32, passwd: &str) -> Option<String> {
    let mut users = passwd.lines().map(|line| line.split(':'));
    let name = |mut user: std::str::Split<'_, char>| {
        let name = user.next()?;
        (user.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    users.find_map(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_has_the_name_that_the_system_gives_it() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# broken\nlatchkey:x:998:998::/:/usr/sbin/nologin\n";
        assert_eq!(name_of(998, passwd).as_deref(), Some("latchkey"));
        assert_eq!(name_of(0, passwd).as_deref(), Some("root"));
        assert_eq!(name_of(7, passwd), None);
    }
}
