//! Who is at the other end of the admin socket.

use contract::admin::Author;

/// `uid` as the kernel says; none where the other end is gone already. `by`: who the caller says to act for.
pub(super) fn author(uid: Option<u32>, by: Option<String>) -> Author {
    let users = || std::fs::read_to_string("/etc/passwd").ok();
    let user = uid.and_then(|uid| name_of(uid, &users()?));
    Author { uid, user, by, caller: None }
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
