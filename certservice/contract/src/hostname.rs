//! A DNS host name, in the one form that every part compares: A-labels (RFC 5890), lower case, no trailing dot. What may be
//! registered is such a name or a wildcard: `*.` and a name.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest name in presentation form (RFC 1035 section 2.3.4, less the root).
pub const NAME_BYTES_MAX: usize = 253;
/// Longest label (RFC 1035 section 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// A host name with at least two labels, or a wildcard above one. Cheap to clone. What visitors name is never a wildcard.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    #[error("host name is empty")]
    Empty,
    #[error("host name is {0} bytes, at most {NAME_BYTES_MAX} are accepted")]
    TooLong(usize),
    #[error(
        "`{0}` is not a host name: letters, digits and inner hyphens in labels of 1 to {LABEL_BYTES_MAX} bytes (RFC 1123, RFC 5890)"
    )]
    Malformed(String),
    #[error("`{0}` has a single label; a domain needs at least two, such as shop.example")]
    SingleLabel(String),
    #[error("`{0}` is an IP address, not a host name")]
    IpAddress(String),
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Hostname {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Hostname".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A-labels, lower case, without a dot at the end; a wildcard begins with `*.`.",
            "minLength": 3,
            "maxLength": NAME_BYTES_MAX,
            "pattern": r"^(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)+$",
        })
    }
}

impl Hostname {
    /// Reads what a person typed: Unicode, upper case and one trailing dot are accepted (UTS-46, non-transitional).
    pub fn parse(text: &str) -> Result<Self, HostnameError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(HostnameError::Empty);
        }
        if text.parse::<std::net::IpAddr>().is_ok() || text.starts_with('[') {
            return Err(HostnameError::IpAddress(shown(text)));
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let ascii = Uts46::new()
            .to_ascii(text.as_bytes(), AsciiDenyList::STD3, Hyphens::Check, DnsLength::Ignore)
            .map_err(|_| HostnameError::Malformed(shown(text)))?;
        check(&ascii)?;
        Ok(Self(ascii.into()))
    }

    /// The same, or a wildcard: `*.` and a name (RFC 4592, RFC 9525 section 6.3).
    pub fn parse_domain(text: &str) -> Result<Self, HostnameError> {
        match text.trim().strip_prefix("*.") {
            None => Self::parse(text),
            Some(base) => Self::parse(base)?.with_star(),
        }
    }

    fn with_star(&self) -> Result<Self, HostnameError> {
        match self.0.len() + 2 {
            bytes @ ..=NAME_BYTES_MAX => {
                let mut name = String::with_capacity(bytes);
                name.push_str("*.");
                name.push_str(&self.0);
                Ok(Self(name.into()))
            }
            bytes => Err(HostnameError::TooLong(bytes)),
        }
    }

    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// The name without the `*.` of a wildcard: what control is shown of.
    pub fn base(&self) -> &str {
        self.0.strip_prefix("*.").unwrap_or(&self.0)
    }

    /// The wildcard that stands for this name, if there can be one.
    pub fn wildcard(&self) -> Option<Self> {
        let (label, parent) = self.0.split_once('.')?;
        let has_two = parent.contains('.') && label != "*";
        if has_two { Self(parent.into()).with_star().ok() } else { None }
    }

    /// Reads what a TLS client or an HTTP request named: ASCII only (RFC 6066 section 3), case folded, no IDNA mapping.
    pub fn from_wire(text: &str) -> Result<Self, HostnameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            let lower = text.to_ascii_lowercase();
            check(&lower)?;
            return Ok(Self(lower.into()));
        }
        check(text)?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Holds for every `Hostname`: LDH labels, lower case, at least two of them, the last one not a number.
fn check(name: &str) -> Result<(), HostnameError> {
    if name.is_empty() {
        return Err(HostnameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(HostnameError::TooLong(name.len()));
    }
    let malformed = || HostnameError::Malformed(shown(name));
    let mut labels = 0;
    let mut last = "";
    for label in name.split('.') {
        let bytes = label.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        if bytes.is_empty() || bytes.len() > LABEL_BYTES_MAX || !bytes.iter().all(inner) {
            return Err(malformed());
        }
        if bytes[0] == b'-' || bytes[bytes.len() - 1] == b'-' {
            return Err(malformed());
        }
        labels += 1;
        last = label;
    }
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostnameError::IpAddress(shown(name)));
    }
    if labels < 2 {
        return Err(HostnameError::SingleLabel(shown(name)));
    }
    Ok(())
}

/// Untrusted text for an error message: printable, bounded.
fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().count() > 80 {
        out.push('…');
    }
    out
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Hostname {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hostname {
    type Err = HostnameError;
    fn from_str(text: &str) -> Result<Self, HostnameError> {
        Self::parse_domain(text)
    }
}

impl Serialize for Hostname {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_domain(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_what_people_type_to_one_form() {
        for (typed, stored) in [
            ("Shop.Example", "shop.example"),
            ("shop.example.", "shop.example"),
            (" bücher.example ", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("shop。example", "shop.example"),
            ("a-b.c-d.example", "a-b.c-d.example"),
        ] {
            assert_eq!(Hostname::parse(typed).map(|h| h.to_string()), Ok(stored.to_owned()), "{typed}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_host_name() {
        for typed in [
            "",
            ".",
            "..",
            "localhost",
            "a..example",
            ".example",
            "shop.example..",
            "-a.example",
            "a-.example",
            "a_b.example",
            "*.example",
            "a b.example",
            "a/b.example",
            "a:443",
            "127.0.0.1",
            "::1",
            "[::1]",
            "1.2.3",
            "xn--a.example",
            "shop.example\0",
            "shop.example\r\nx",
        ] {
            assert!(Hostname::parse(typed).is_err(), "{typed:?}");
            assert!(Hostname::from_wire(typed).is_err() || typed == "xn--a.example", "{typed:?}");
        }
    }

    #[test]
    fn accepts_the_limit_and_refuses_one_more() {
        let label = "a".repeat(LABEL_BYTES_MAX);
        assert!(Hostname::parse(&format!("{label}.example")).is_ok());
        assert!(Hostname::parse(&format!("{label}a.example")).is_err());
        let name = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(name.len(), NAME_BYTES_MAX);
        assert!(Hostname::from_wire(&name).is_ok());
        assert_eq!(Hostname::from_wire(&format!("{name}a")), Err(HostnameError::TooLong(NAME_BYTES_MAX + 1)));
    }

    #[test]
    fn a_wildcard_is_registered_and_never_named_by_a_visitor() {
        let wildcard = Hostname::parse_domain(" *.Bücher.Example. ").unwrap();
        assert_eq!((wildcard.as_str(), wildcard.base()), ("*.xn--bcher-kva.example", "xn--bcher-kva.example"));
        assert!(wildcard.is_wildcard() && wildcard.wildcard().is_none());
        assert_eq!("*.shop.example".parse::<Hostname>().unwrap().as_str(), "*.shop.example");
        for typed in ["*", "*.", "*.example", "*.*.shop.example", "a.*.example", "x*.shop.example", "*.127.0.0.1"] {
            assert!(Hostname::parse_domain(typed).is_err(), "{typed}");
        }
        assert!(Hostname::parse("*.shop.example").is_err() && Hostname::from_wire("*.shop.example").is_err());
        let above = |name: &str| Hostname::parse(name).unwrap().wildcard().map(|name| name.to_string());
        assert_eq!(above("a.shop.example").as_deref(), Some("*.shop.example"));
        assert_eq!(above("b.a.shop.example").as_deref(), Some("*.a.shop.example"));
        assert_eq!(above("shop.example"), None);
        let label = "a".repeat(LABEL_BYTES_MAX);
        let name = format!("{label}.{label}.{label}.{}", "a".repeat(59));
        assert!(Hostname::parse_domain(&format!("*.{name}")).is_ok());
        assert_eq!(Hostname::parse_domain(&format!("*.{name}aa")), Err(HostnameError::TooLong(NAME_BYTES_MAX + 2)));
        assert!(Hostname::parse(&format!("x.{name}aa")).is_err());
        assert_eq!(Hostname::parse(&format!("x.{name}")).unwrap().wildcard().unwrap().as_str().len(), NAME_BYTES_MAX);
    }

    #[test]
    fn wire_names_are_not_mapped() {
        assert!(Hostname::from_wire("bücher.example").is_err());
        assert_eq!(Hostname::from_wire("SHOP.example.").map(|h| h.to_string()), Ok("shop.example".to_owned()));
    }

    #[test]
    fn errors_escape_and_bound_what_they_quote() {
        let error = Hostname::parse(&format!("a\u{7}{}", "b".repeat(300))).unwrap_err().to_string();
        assert!(error.contains("\\u{7}") && error.len() < 300, "{error}");
    }
}
