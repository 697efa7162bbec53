//! What a ClientHello asks for, read from its extensions before OpenSSL has acted on any of them: so that the name is
//! settled before a session is resumed.

use contract::Hostname;

/// The protocol of TLS-ALPN-01 challenges (RFC 8737).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";
/// RFC 6066 section 3: the only kind of name there is.
const HOST_NAME: u8 = 0;

/// What the client named (SNI, RFC 6066 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerName {
    Absent,
    Host(Hostname),
    /// Not a host name, such as an IP address.
    Malformed(String),
}

/// Which protocols the client offers (ALPN, RFC 7301), as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP, or nothing.
    Http,
    /// A CA that checks a TLS-ALPN-01 challenge: `acme-tls/1` alone.
    Acme,
    /// `acme-tls/1` beside others, which RFC 8737 section 3 forbids.
    AcmeAmongOthers,
}

pub(super) fn server_name(extension: Option<&[u8]>) -> ServerName {
    let Some(extension) = extension else {
        return ServerName::Absent;
    };
    let malformed = |why: &str| ServerName::Malformed(why.to_owned());
    // RFC 6066 has a list, of which there can be one of each kind, and one kind.
    let Some((list, [])) = split_16(extension) else {
        return malformed("the extension is broken");
    };
    match list.split_first().and_then(|(kind, rest)| Some((*kind, split_16(rest)?))) {
        Some((HOST_NAME, (name, []))) => match str::from_utf8(name) {
            Ok(name) => Hostname::from_wire(name).map_or_else(|error| malformed(&error.to_string()), ServerName::Host),
            Err(_) => malformed("not ASCII"),
        },
        _ => malformed("not exactly one host name"),
    }
}

/// A list that is broken is left to OpenSSL, which refuses it.
pub(super) fn offer(extension: Option<&[u8]>) -> Offer {
    let list = extension.and_then(split_16).map_or(&[][..], |(list, _)| list);
    let mut offered = Protocols(list);
    match (offered.any(|name| name == ACME_TLS), Protocols(list).count()) {
        (false, _) => Offer::Http,
        (true, 1) => Offer::Acme,
        (true, _) => Offer::AcmeAmongOthers,
    }
}

/// The names of a ProtocolNameList.
struct Protocols<'a>(&'a [u8]);

impl<'a> Iterator for Protocols<'a> {
    type Item = &'a [u8];
    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        self.0 = rest;
        Some(name)
    }
}

/// A vector with a length of 16 bits, and what follows it.
fn split_16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(2)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes([length[0], length[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &[u8]) -> Vec<u8> {
        let length = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        [&length(name.len() + 3)[..], &[0], &length(name.len()), name].concat()
    }

    fn listed(protocols: &[&[u8]]) -> Vec<u8> {
        let list: Vec<u8> = protocols.iter().flat_map(|p| [&[p.len() as u8][..], p].concat()).collect();
        [&(list.len() as u16).to_be_bytes()[..], &list].concat()
    }

    #[test]
    fn reads_one_host_name() {
        assert_eq!(server_name(None), ServerName::Absent);
        let host = ServerName::Host(Hostname::parse("shop.example").unwrap());
        for text in ["shop.example", "Shop.EXAMPLE", "shop.example."] {
            assert_eq!(server_name(Some(&named(text.as_bytes()))), host, "{text}");
        }
    }

    #[test]
    fn what_is_not_exactly_one_host_name_is_malformed() {
        let long = format!("{}.example", "a".repeat(300));
        let mut malformed: Vec<Vec<u8>> =
            ["", "127.0.0.1", "::1", "[::1]", "localhost", "a_b.example", "a..example", "b\u{fc}cher.example", &long]
                .map(|name| named(name.as_bytes()))
                .to_vec();
        malformed.push(named(b"a.example\0"));
        malformed.push(named(b"\xff\xfe.example"));
        let good = named(b"a.example");
        malformed.extend((0..good.len()).map(|cut| good[..cut].to_vec()));
        malformed.push([&good[..], &[0]].concat());
        malformed.push([&[0, 24], &good[2..], &good[2..]].concat());
        malformed.push([&good[..2], &[1], &good[3..]].concat());
        for extension in malformed {
            let read = server_name(Some(&extension));
            assert!(matches!(read, ServerName::Malformed(_)), "{extension:?}: {read:?}");
        }
    }

    #[test]
    fn a_challenge_is_acme_tls_and_nothing_else() {
        for (offered, expected) in [
            ("", Offer::Http),
            ("h2,http/1.1", Offer::Http),
            ("acme-tls/2", Offer::Http),
            ("acme-tls/1", Offer::Acme),
            ("acme-tls/1,h2", Offer::AcmeAmongOthers),
            ("h2,acme-tls/1", Offer::AcmeAmongOthers),
            ("acme-tls/1,acme-tls/1", Offer::AcmeAmongOthers),
        ] {
            let protocols: Vec<&[u8]> = offered.split(',').map(str::as_bytes).collect();
            assert_eq!(offer(Some(&listed(&protocols))), expected, "{offered}");
        }
        assert_eq!(offer(None), Offer::Http);
        let good = listed(&[ACME_TLS, b"h2"]);
        for cut in 0..good.len() {
            // Whatever is left of it, it is not taken for a challenge.
            assert_ne!(offer(Some(&good[..cut])), Offer::Acme, "{cut}");
        }
    }
}
