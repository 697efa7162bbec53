//! Questions of plugins to other servers: what may be asked, how often, for how long and how much may come back. Who
//! carries them is another room's: a [`Callee`].

mod checked; // what a guest asks, and what it is told
mod heard; // by a live call, for its shadow

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;
use wasmtime::error::format_err;

pub(super) use self::heard::{Answering, Heard, Questions};
use super::guest::callout as wit;
use super::limits::{self, State};
use super::types::Header;

/// Of one call.
const CALLOUTS_MAX: u32 = 4;
/// Of one call, with those that were refused.
const TOLD_MAX: usize = 16;
pub const REPLY_BODY_BYTES_MAX: usize = 64 << 10;

/// A server that an operator grants to a binding.
pub trait Callee: Send + Sync {
    /// Must be over `within`; is dropped where nobody waits for it any more. A body of over [`REPLY_BODY_BYTES_MAX`] is
    /// `TooLarge`.
    fn ask(self: Arc<Self>, request: CalloutRequest, within: Duration) -> Asking;
}

pub type Asking = Pin<Box<dyn Future<Output = Result<CalloutReply, NoReply>> + Send>>;

/// Checked: no field of it can end a line, frame the body or name another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalloutRequest {
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: Vec<Header>,
    pub body: Vec<u8>,
    /// Whose request waits for it: by which a server is chosen. It is not sent.
    pub client: Option<IpAddr>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CalloutReply {
    pub status: u16,
    pub headers: Vec<Header>,
    pub body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoReply {
    TimedOut,
    Unreachable,
    Broken,
    TooLarge,
}

/// What a binding is granted.
#[derive(Clone, Default)]
pub struct Callouts {
    pub to: BTreeMap<String, Arc<dyn Callee>>,
    /// For all of one call together.
    pub timeout: Duration,
}

/// One that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callout {
    /// For a metric label.
    pub result: &'static str,
    pub took: Duration,
}

/// While `on-request` runs.
pub(super) struct Calling {
    method: String,
    address: Option<IpAddr>,
    left: u32,
    until: Instant,
    answering: Answering,
    made: Vec<Callout>,
}

/// What a guest asks, once it may.
struct Question {
    to: String,
    callee: Arc<dyn Callee>,
    request: CalloutRequest,
    within: Duration,
}

impl Calling {
    pub(super) fn begin(method: &str, address: Option<IpAddr>, timeout: Duration, answering: Answering) -> Self {
        let until = Instant::now() + timeout;
        Self { method: method.to_owned(), address, left: CALLOUTS_MAX, until, answering, made: Vec::new() }
    }

    /// What was made, and what was heard where it was kept.
    pub(super) fn over(self) -> (Vec<Callout>, Option<Heard>) {
        (self.made, self.answering.heard())
    }
}

/// For all plugins, `describe` and `plan` too: it can be imported, and asks nobody.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut instance = linker.instance(super::guest::CALLOUT)?;
    instance.func_wrap("granted", |store: StoreContextMut<'_, State>, (): ()| Ok((granted(store.data()),)))?;
    instance.func_wrap("who", |store: StoreContextMut<'_, State>, (): ()| Ok((visitor(store.data())?,)))?;
    instance.func_wrap("send", |_: StoreContextMut<'_, State>, _: (wit::Request,)| refused())
}

/// In its place, for instances that serve.
pub(super) fn link_waiting(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut instance = linker.instance(super::guest::CALLOUT)?;
    instance.func_wrap_async("send", |store: StoreContextMut<'_, State>, (request,): (wit::Request,)| {
        Box::new(send(store, request))
    })
}

fn granted(state: &State) -> Vec<String> {
    state.callouts.iter().flat_map(|callouts| callouts.to.keys().cloned()).collect()
}

fn visitor(state: &State) -> wasmtime::Result<wit::Visitor> {
    let Some(calling) = &state.calling else { return Err(format_err!("the visitor is told in `on-request` only")) };
    let address = calling.address.map(|address| match address.to_canonical() {
        IpAddr::V4(v4) => wit::Ip::V4(v4.to_bits()),
        IpAddr::V6(v6) => wit::Ip::V6(((v6.to_bits() >> 64) as u64, v6.to_bits() as u64)),
    });
    Ok(wit::Visitor { method: calling.method.clone(), address })
}

type Told = (Result<wit::Response, wit::Error>,);

fn refused() -> wasmtime::Result<Told> {
    Err(format_err!(
        "a callout is for `on-request` of what serves: nothing waits in `describe`, `plan`, a constructor or `on-response`"
    ))
}

async fn send(mut store: StoreContextMut<'_, State>, request: wit::Request) -> wasmtime::Result<Told> {
    let began = Instant::now();
    let asked = match begin(store.data_mut(), request, began)? {
        Ok(question) => match heard_before(store.data_mut(), &question)? {
            Some(told) => told,
            None => ask(&mut store, question).await,
        },
        Err(error) => Err(error),
    };
    if let Some(calling) = store.data_mut().calling.as_mut().filter(|calling| calling.made.len() < TOLD_MAX) {
        calling.made.push(Callout { result: label(&asked), took: began.elapsed() });
    }
    Ok((asked,))
}

/// The first error is the guest's end, the second is told to it.
fn begin(state: &mut State, request: wit::Request, now: Instant) -> wasmtime::Result<Result<Question, wit::Error>> {
    let (Some(calling), Some(callouts)) = (&mut state.calling, &state.callouts) else {
        return refused().map(|_| Err(wit::Error::Spent));
    };
    let Some(callee) = callouts.to.get(&request.upstream) else { return Ok(Err(wit::Error::NotGranted)) };
    let left = calling.until.saturating_duration_since(now);
    if calling.left == 0 || left.is_zero() {
        if calling.left > 0 {
            calling.answering.is_out_of_time();
        }
        // A guest that goes on asking ends by its instructions: nothing is kept of these.
        return Ok(Err(wit::Error::Spent));
    }
    let within = match request.timeout_ms {
        0 => left,
        most => left.min(Duration::from_millis(most.into())),
    };
    let to = request.upstream.clone();
    Ok(checked::request(request).map(|request| {
        calling.left -= 1;
        let request = CalloutRequest { client: calling.address, ..request };
        Question { to, callee: callee.clone(), request, within }
    }))
}

/// What a shadow is told; none for what is live.
fn heard_before(
    state: &mut State,
    Question { to, request, .. }: &Question,
) -> wasmtime::Result<Option<Result<wit::Response, wit::Error>>> {
    match state.calling.as_deref_mut() {
        Some(Calling { answering: Answering::Heard(heard), .. }) => Ok(Some(heard.again(to, request)?)),
        _ => Ok(None),
    }
}

async fn ask(
    store: &mut StoreContextMut<'_, State>,
    Question { to, callee, request, within }: Question,
) -> Result<wit::Response, wit::Error> {
    let is_kept = store.data().calling.as_ref().is_some_and(|calling| calling.answering.is_kept());
    let kept = is_kept.then(|| request.clone());
    let reply = callee.ask(request, within).await;
    limits::resume(store);
    let told = checked::reply(reply);
    if let Some(calling) = &mut store.data_mut().calling {
        calling.answering.keep(&to, kept, &told);
    }
    told
}

fn label(asked: &Result<wit::Response, wit::Error>) -> &'static str {
    match asked {
        Ok(_) => "answered",
        Err(wit::Error::NotGranted) => "not_granted",
        Err(wit::Error::Spent) => "spent",
        Err(wit::Error::Illegal(_)) => "illegal",
        Err(wit::Error::TimedOut) => "timed_out",
        Err(wit::Error::Unreachable) => "unreachable",
        Err(wit::Error::Broken) => "broken",
        Err(wit::Error::TooLarge) => "too_large",
    }
}
