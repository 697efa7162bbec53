//! A plugin with a configuration: what routes and listeners hold, and what a request calls.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::component::Plugin;
use super::engine::Inner;
use super::guest::{connection, control, http};
use super::instance::Instance;
use super::limits::Budget;
use super::shelf::Place;
use super::types::{
    Action, Class, Diagnostic, Edit, Expectation, Fault, Hooks, Outcome, RequestFacts, RequestView, ResponseView, Seen,
    Usage,
};
use super::verify;
use crate::accept::header::{PeerTls, Tlvs, Version};

/// Larger than what is accepted of edits, since lists and records take room of their own.
const OUTPUT_BYTES_MAX: usize = 4 * verify::OUTPUT_BYTES_MAX;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The plugin refuses the configuration.
    #[error("{}", refusal(.0))]
    Diagnostics(Vec<Diagnostic>),
    #[error(transparent)]
    Fault(#[from] Fault),
}

pub struct Binding {
    host: Arc<Inner>,
    plugin: Arc<Plugin>,
    compiled: Vec<u8>,
    hooks: Hooks,
    wants: Vec<Field>,
    warnings: Vec<Diagnostic>,
    budget: Budget,
    place: Place,
}

/// A header field that the plugin asked for, by lower-case name.
enum Field {
    Request(String),
    Response(String),
}

impl Binding {
    pub(super) fn new(host: &Arc<Inner>, plugin: &Arc<Plugin>, config_json: &str) -> Result<Self, BindError> {
        let plan = match plugin.plan(host, config_json)? {
            Ok(plan) => plan,
            Err(diagnostics) => return Err(BindError::Diagnostics(verify::refusal(diagnostics)?)),
        };
        verify::compiled(&plan.compiled)?;
        let binding = Self {
            host: host.clone(),
            plugin: plugin.clone(),
            compiled: plan.compiled,
            hooks: hooks(plugin.class(), plan.hooks),
            wants: wants(plugin.class(), plan.wants)?,
            warnings: verify::warnings(plan.warnings)?,
            budget: budget(host, plugin.class()),
            place: Place::new(),
        };
        // A configuration that its own policy can't start with is refused now, not at the first request.
        binding.start()?;
        Ok(binding)
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Which calls to make. A connection plugin has none of these.
    pub fn hooks(&self) -> Hooks {
        self.hooks
    }

    /// What the plugin accepted with a remark.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    pub fn on_request(&self, facts: &RequestFacts, request: &dyn RequestView) -> Result<Action, Fault> {
        let wanted = self.wanted(request, None);
        let action = self.with_instance(|instance| {
            instance.call_http(|policy, store, this| {
                let (host, path, query) = (request.host(), request.path(), request.query());
                policy.call_on_request(store, this, guest_facts(facts), host, path, query, &wanted)
            })
        })?;
        verify::action(action)
    }

    pub fn on_response(
        &self,
        facts: &RequestFacts,
        request: &dyn RequestView,
        response: &dyn ResponseView,
    ) -> Result<Vec<Edit>, Fault> {
        let wanted = self.wanted(request, Some(response));
        let edits = self.with_instance(|instance| {
            instance.call_http(|policy, store, this| {
                let (host, path, status) = (request.host(), request.path(), response.status());
                policy.call_on_response(store, this, guest_facts(facts), host, path, status, &wanted)
            })
        })?;
        verify::edits(edits)
    }

    /// How the first bytes from this peer are to be read.
    pub fn expect(&self, listener: &str, peer: SocketAddr) -> Result<Expectation, Fault> {
        let expectation = self.with_instance(|instance| {
            instance.call_connection(|policy, store, this| policy.call_expect(store, this, listener, endpoint(peer)))
        })?;
        Ok(match expectation {
            connection::Expectation::Forbid => Expectation::Forbid,
            connection::Expectation::Allow => Expectation::Allow,
            connection::Expectation::Require => Expectation::Require,
            connection::Expectation::RequireChecksum => Expectation::RequireChecksum,
        })
    }

    /// What becomes of the connection, once what was expected has been seen.
    pub fn judge(&self, listener: &str, peer: SocketAddr, seen: Seen<'_>) -> Result<Outcome, Fault> {
        let outcome = self.with_instance(|instance| {
            instance.call_connection(|policy, store, this| {
                policy.call_judge(store, this, listener, endpoint(peer), &guest_seen(seen))
            })
        })?;
        verify::outcome(outcome, peer, seen)
    }

    /// Of the last call on this thread; none where its instance is not kept, such as after a fault.
    pub fn usage(&self) -> Option<Usage> {
        self.place.look(Instance::usage)
    }

    /// Starts an instance and drops it: what the first call on a thread takes more than others.
    pub fn start_once(&self) -> Result<(), Fault> {
        self.start().map(drop)
    }

    /// Of the compiled plan, which every instance holds.
    pub fn compiled_bytes(&self) -> usize {
        self.compiled.len()
    }

    fn with_instance<T>(&self, call: impl FnOnce(&mut Instance) -> Result<T, Fault>) -> Result<T, Fault> {
        self.place.with(self.host.settings.instances_per_thread_max, || self.start(), call)
    }

    fn start(&self) -> Result<Instance, Fault> {
        Instance::start(&self.host, &self.plugin, self.budget, &self.compiled)
    }

    fn wanted<'a>(
        &self,
        request: &'a dyn RequestView,
        response: Option<&'a dyn ResponseView>,
    ) -> Vec<Option<&'a [u8]>> {
        let value = |field: &Field| match field {
            Field::Request(name) => request.header(name),
            Field::Response(name) => response.and_then(|response| response.header(name)),
        };
        self.wants.iter().map(value).collect()
    }
}

fn budget(host: &Inner, class: Class) -> Budget {
    let settings = &host.settings;
    Budget {
        start_instructions: settings.start_instructions,
        call_instructions: match class {
            Class::Connection => settings.connection_instructions,
            Class::Http => settings.http_instructions,
        },
        time: settings.call_time,
        memory_bytes: settings.memory_bytes_max,
        output_bytes: OUTPUT_BYTES_MAX,
    }
}

fn hooks(class: Class, hooks: control::Hooks) -> Hooks {
    let wanted = |hook| class == Class::Http && hooks.contains(hook);
    Hooks { request: wanted(control::Hooks::REQUEST), response: wanted(control::Hooks::RESPONSE) }
}

fn wants(class: Class, fields: Vec<control::Field>) -> Result<Vec<Field>, Fault> {
    if class == Class::Connection {
        return Ok(Vec::new());
    }
    verify::wants_count(fields.len())?;
    let field = |field| match field {
        control::Field::RequestHeader(name) => verify::name(name).map(Field::Request),
        control::Field::ResponseHeader(name) => verify::name(name).map(Field::Response),
    };
    fields.into_iter().map(field).collect()
}

fn guest_facts(facts: &RequestFacts) -> http::Facts {
    http::Facts {
        now_ms: facts.now_ms,
        scheme: if facts.https { http::Scheme::Https } else { http::Scheme::Http },
        ip_literal_host: facts.ip_host,
        rollout_bucket: facts.rollout_bucket,
    }
}

fn endpoint(address: SocketAddr) -> connection::Endpoint {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(ip) => connection::Ip::V4(ip.to_bits()),
        IpAddr::V6(ip) => connection::Ip::V6(((ip.to_bits() >> 64) as u64, ip.to_bits() as u64)),
    };
    connection::Endpoint { ip, port: address.port() }
}

fn guest_seen(seen: Seen<'_>) -> connection::Seen {
    let Some(header) = seen else { return connection::Seen::Nothing };
    connection::Seen::Header(connection::ProxyHeader {
        version: match header.version {
            Version::V1 => connection::HeaderVersion::V1,
            Version::V2 => connection::HeaderVersion::V2,
        },
        client: header.source.map(endpoint),
        destination: header.destination.map(endpoint),
        local: header.local,
        fields: guest_fields(&header.tlvs),
    })
}

fn guest_fields(tlvs: &Tlvs) -> connection::HeaderFields {
    let tls = |tls: &PeerTls| connection::PeerTls {
        version: tls.version.clone(),
        cipher: tls.cipher.clone(),
        client_verified: tls.client_verified,
        client_common_name: tls.client_common_name.clone(),
    };
    let other = |(kind, value): &(u8, Vec<u8>)| connection::OtherField { kind: *kind, value: value.clone() };
    connection::HeaderFields {
        checked: tlvs.checked,
        alpn: tlvs.alpn.clone(),
        authority: tlvs.authority.clone(),
        unique_id: tlvs.unique_id.clone(),
        tls: tlvs.tls.as_ref().map(tls),
        aws_vpce_id: tlvs.aws_vpce_id.clone(),
        azure_link_id: tlvs.azure_link_id,
        gcp_psc_id: tlvs.gcp_psc_id,
        others: tlvs.others.iter().map(other).collect(),
    }
}

fn refusal(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<_> = diagnostics.iter().map(|d| format!("{}: {}", d.at, d.message)).collect();
    lines.join("; ")
}
