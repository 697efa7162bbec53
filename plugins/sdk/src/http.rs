//! Plugins of the world `http-plugin`.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Manifest;
use crate::config::{self, Diagnostic, Value};
use crate::datasets::Dataset;

pub use crate::bindings::control::Field;
pub use crate::bindings::http::{
    Action, Certificate, Changes, Depends, Edit, Facts, Header, LocalResponse, Memo, Redirect, RedirectStatus, Unwell,
    Verdict, Visit,
};

impl Facts {
    /// For tests: a visit over HTTPS to a site that is well, in the first bucket.
    pub const EXAMPLE: Self =
        Self { now_ms: 0, visit: Visit::HTTPS, certificate: Certificate::Healthy, rollout_bucket: 0 };

    pub fn is_https(&self) -> bool {
        self.visit.contains(Visit::HTTPS)
    }

    /// The host is an IP address, not a name.
    pub fn is_for_ip(&self) -> bool {
        self.visit.contains(Visit::IP_LITERAL_HOST)
    }
}

/// A configuration at work. Its serde form is what the proxy keeps.
pub trait HttpPolicy: Serialize + DeserializeOwned + 'static {
    const MANIFEST: Manifest;

    /// Reads and checks a configuration.
    fn plan(config: &Value<'_>) -> Option<Plan<Self>>;

    /// Called if the plan says [`Plan::on_request`].
    fn on_request(&self, _facts: &Facts, _request: &Request<'_>) -> Verdict {
        Action::Next.into()
    }

    /// Called if the plan says [`Plan::on_response`].
    fn on_response(&self, _facts: &Facts, _response: &Response<'_>) -> Changes {
        Vec::new().into()
    }
}

impl From<Action> for Verdict {
    fn from(action: Action) -> Self {
        Self { action, memo: None, rule: None }
    }
}

impl Verdict {
    /// The proxy may give this answer again for so many seconds, without a call, where what it depends on is the same.
    pub fn holds(self, on: Depends, seconds: u32) -> Self {
        Self { memo: Some(Memo { on, for_ms: seconds.saturating_mul(1000) }), ..self }
    }

    /// Which of the rules that were declared ([`crate::rules::declare`]) decided: the proxy keeps when each did last.
    pub fn by(self, rule: u32) -> Self {
        Self { rule: Some(rule), ..self }
    }
}

impl From<Vec<Edit>> for Changes {
    fn from(edits: Vec<Edit>) -> Self {
        Self { edits, memo: None }
    }
}

impl Changes {
    /// The proxy may make these changes again for so many seconds, without a call, where what they depend on is the same.
    pub fn hold(self, on: Depends, seconds: u32) -> Self {
        Self { memo: Some(Memo { on, for_ms: seconds.saturating_mul(1000) }), ..self }
    }
}

/// A policy, and what it needs of the proxy.
#[derive(Debug)]
pub struct Plan<P> {
    pub policy: P,
    pub(crate) request: bool,
    pub(crate) response: bool,
    pub(crate) found_only: bool,
    pub(crate) wants: Vec<Field>,
}

impl<P> Plan<P> {
    pub fn new(policy: P) -> Self {
        Self { policy, request: false, response: false, found_only: false, wants: Vec::new() }
    }

    /// The policy decides about requests.
    pub fn on_request(mut self) -> Self {
        self.request = true;
        self
    }

    /// The policy decides about responses.
    pub fn on_response(mut self) -> Self {
        self.response = true;
        self
    }

    /// The policy is asked about a request only where one of the datasets has something for it.
    pub fn where_found(mut self) -> Self {
        self.found_only = true;
        self
    }

    /// The policy is given what is found in the first of these datasets that has something, at its place in `wanted`.
    pub fn wants_found(self, datasets: &[&Dataset]) -> Self {
        self.wants(Field::Found(datasets.iter().map(|dataset| dataset.name().to_owned()).collect()))
    }

    /// The policy reads this header field; the first one wanted is `wanted[0]`.
    pub fn wants(mut self, field: Field) -> Self {
        self.wants.push(field);
        self
    }
}

pub struct Request<'a> {
    /// Lower case, without port.
    pub host: &'a str,
    /// As sent, without query.
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// Values of the fields that the plan wants, by position.
    pub wanted: &'a [Option<Vec<u8>>],
}

pub struct Response<'a> {
    pub host: &'a str,
    pub path: &'a str,
    pub status: u16,
    /// Values of the fields that the plan wants, by position.
    pub wanted: &'a [Option<Vec<u8>>],
}

/// `name: value`, for an edit.
pub fn header(name: &str, value: &str) -> Header {
    Header { name: name.to_owned(), value: value.as_bytes().to_vec() }
}

/// Checks a configuration as the proxy would: for tests. What comes with a plan are warnings.
pub fn check<P: HttpPolicy>(config: &str) -> Result<(Plan<P>, Vec<Diagnostic>), Vec<Diagnostic>> {
    config::read(config.as_bytes(), P::plan)
}

/// Exports an [`HttpPolicy`] from the component. Once in a crate.
#[macro_export]
macro_rules! export_http {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Plugin = $crate::glue::Http<$policy>;
    $crate::bindings::control::export_control!(Plugin with_types_in $crate::bindings::control);
    $crate::bindings::http::export_http_policy!(Plugin with_types_in $crate::bindings::http);
        };
        // A native build exports nothing, and would call the policy unused.
        #[cfg(not(target_arch = "wasm32"))]
        const _: *const () = <$policy as $crate::http::HttpPolicy>::plan as *const ();
    };
}
