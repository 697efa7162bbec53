//! What plugins change in header fields, applied to Pingora's headers.

use http::header::{HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};

use super::arrival;
use crate::wasm::Edit;

/// Names and values were checked by `wasm`; one that the HTTP library still refuses is left out.
pub(super) fn apply<H: Fields>(edits: &[Edit], fields: &mut H) {
    for edit in edits {
        fields.begin(edit.name());
        match edit {
            Edit::Set { name, value } => with(name, value, |name, value| fields.set(name, value)),
            Edit::Append { name, value } => with(name, value, |name, value| fields.append(name, value)),
            Edit::SetIfAbsent { name, value } if !fields.has(name) => {
                with(name, value, |name, value| fields.set(name, value))
            }
            Edit::SetIfAbsent { .. } => {}
            Edit::Remove { name } => fields.remove(name),
        }
    }
}

fn with(name: &str, value: &[u8], put: impl FnOnce(HeaderName, HeaderValue)) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
        put(name, value);
    }
}

/// Pingora's two header types, as far as edits go.
pub(super) trait Fields {
    /// Before an edit of that name, which is in lower case.
    fn begin(&mut self, name: &str);
    fn has(&self, name: &str) -> bool;
    fn set(&mut self, name: HeaderName, value: HeaderValue);
    fn append(&mut self, name: HeaderName, value: HeaderValue);
    fn remove(&mut self, name: &str);
}

macro_rules! fields {
    ($header:ty, $begin:expr) => {
        impl Fields for $header {
            fn begin(&mut self, name: &str) {
                $begin(self, name);
            }
            fn has(&self, name: &str) -> bool {
                self.headers.contains_key(name)
            }
            fn set(&mut self, name: HeaderName, value: HeaderValue) {
                let _ = self.insert_header(name, value);
            }
            fn append(&mut self, name: HeaderName, value: HeaderValue) {
                let _ = self.append_header(name, value);
            }
            fn remove(&mut self, name: &str) {
                self.remove_header(name);
            }
        }
    };
}
// What the visitor sent in another spelling would stand beside it, and upstreams may take that one.
fields!(RequestHeader, arrival::remove_other_spellings);
fields!(ResponseHeader, |_, _| ());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_spelling_stands_beside_what_a_plugin_edits() {
        let field = || ("x-user".to_owned(), b"7".to_vec());
        let (name, value) = field();
        let edits = [
            (Edit::Set { name, value }, vec!["7"]),
            (Edit::Append { name: field().0, value: field().1 }, vec!["own", "7"]),
            (Edit::SetIfAbsent { name: field().0, value: field().1 }, vec!["own"]),
            (Edit::Remove { name: field().0 }, vec![]),
        ];
        for (edit, expected) in edits {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            for (name, value) in [("X_User", "forged"), ("x-user", "own"), ("x.user", "forged"), ("x-users", "stays")] {
                request.append_header(name, value).unwrap();
            }
            apply(std::slice::from_ref(&edit), &mut request);
            let values: Vec<_> =
                request.headers.get_all("x-user").iter().map(|value| value.to_str().unwrap()).collect();
            let names = 1 + usize::from(!expected.is_empty());
            assert_eq!((values, request.headers.keys_len()), (expected, names), "{edit:?}");
        }
    }

    #[test]
    fn edits_are_applied_in_order() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        response.insert_header("a", "upstream").unwrap();
        let set = |name: &str, value: &str| Edit::Set { name: name.into(), value: value.into() };
        apply(
            &[
                set("a", "one"),
                Edit::Append { name: "a".into(), value: b"two".to_vec() },
                Edit::SetIfAbsent { name: "a".into(), value: b"three".to_vec() },
                Edit::SetIfAbsent { name: "b".into(), value: b"four".to_vec() },
                set("c", "five"),
                Edit::Remove { name: "c".into() },
            ],
            &mut response,
        );
        let values =
            |name: &str| response.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((values("a"), values("b"), values("c")), (vec!["one", "two"], vec!["four"], vec![]));
    }
}
