//! Guests that may wait: each call has a stack of its own (a fiber), which rests while the thread serves others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use futures_util::FutureExt;
use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, Func, InstancePre, ResourceAny};
use wasmtime::error::format_err;

use super::engine::Inner;
use super::guest::{self, http};
use super::limits::State;
use super::types::Fault;
use crate::observe::METRICS;

/// How many calls are under way.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<AtomicU32>);

/// A call under way, until it is dropped.
pub(super) struct UnderWay([Room; 2]);

impl Room {
    /// In the room of the host and in that of a binding, which gets half of all: one whose servers hang leaves the other
    /// half to the others.
    pub(super) fn enter(host: &Inner, binding: &Self) -> Result<UnderWay, Fault> {
        let most = host.settings.waiting_max();
        let under_way = UnderWay([host.waiting.clone(), binding.clone()]);
        METRICS.plugin_waiting.inc();
        let before = under_way.0.each_ref().map(|room| room.0.fetch_add(1, Relaxed));
        let full = before.into_iter().zip([most, most / 2]).find(|(before, most)| before >= most);
        full.map_or(Ok(under_way), |(_, most)| {
            Err(Fault::Unavailable(format!("{most} calls wait already, and no more may")))
        })
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        METRICS.plugin_waiting.dec();
        for room in &self.0 {
            room.0.fetch_sub(1, Relaxed);
        }
    }
}

/// What waits for nothing, on a stack that could.
pub(super) fn at_once<T>(call: impl Future<Output = T>) -> Result<T, Fault> {
    call.now_or_never().ok_or_else(|| Fault::Unavailable("it waited where nothing may".to_owned()))
}

/// What it takes to start an instance.
pub(super) struct WaitingPre {
    pre: InstancePre<State>,
    constructor: ComponentExportIndex,
    on_request: ComponentExportIndex,
    on_response: ComponentExportIndex,
}

/// An instance's functions. The types are those of the instances that don't wait.
pub(super) struct Functions {
    on_request: Func,
    on_response: Func,
}

pub(super) type Wanted<'a> = &'a [Option<&'a [u8]>];
pub(super) type RequestArguments<'a> = (http::Facts, &'a str, &'a str, Option<&'a str>, Wanted<'a>);
pub(super) type ResponseArguments<'a> = (http::Facts, &'a str, &'a str, u16, Wanted<'a>);
type OnRequest<'a> = (ResourceAny, http::Facts, &'a str, &'a str, Option<&'a str>, Wanted<'a>);
type OnResponse<'a> = (ResourceAny, http::Facts, &'a str, &'a str, u16, Wanted<'a>);

impl WaitingPre {
    pub(super) fn new(component: &Component, pre: InstancePre<State>) -> wasmtime::Result<Self> {
        let interface = component.get_export_index(None, guest::HTTP_POLICY);
        let find = |name: &str| {
            let found = interface.as_ref().and_then(|interface| component.get_export_index(Some(interface), name));
            found.ok_or_else(|| format_err!("no function `{name}` in {}", guest::HTTP_POLICY))
        };
        Ok(Self {
            constructor: find("[constructor]policy")?,
            on_request: find("[method]policy.on-request")?,
            on_response: find("[method]policy.on-response")?,
            pre,
        })
    }

    /// An instance without a policy: whether the types are the world's.
    pub(super) async fn fits(&self, store: &mut Store<State>) -> wasmtime::Result<()> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        instance.get_typed_func::<(&[u8],), (ResourceAny,)>(&mut *store, self.constructor)?;
        instance.get_typed_func::<OnRequest<'_>, (http::Verdict,)>(&mut *store, self.on_request)?;
        instance.get_typed_func::<OnResponse<'_>, (http::Changes,)>(&mut *store, self.on_response)?;
        Ok(())
    }

    /// Instance and policy.
    pub(super) async fn start(
        &self,
        store: &mut Store<State>,
        compiled: &[u8],
    ) -> wasmtime::Result<(Functions, ResourceAny)> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let constructor = instance.get_typed_func::<(&[u8],), (ResourceAny,)>(&mut *store, self.constructor)?;
        let mut find = |index| instance.get_func(&mut *store, index).ok_or_else(|| format_err!("a function is gone"));
        let functions = Functions { on_request: find(self.on_request)?, on_response: find(self.on_response)? };
        let (policy,) = constructor.call_async(&mut *store, (compiled,)).await?;
        Ok((functions, policy))
    }
}

impl Functions {
    pub(super) async fn on_request(
        &self,
        store: &mut Store<State>,
        policy: ResourceAny,
        (facts, host, path, query, wanted): RequestArguments<'_>,
    ) -> wasmtime::Result<http::Verdict> {
        let function = self.on_request.typed::<OnRequest<'_>, (http::Verdict,)>(&*store)?;
        Ok(function.call_async(store, (policy, facts, host, path, query, wanted)).await?.0)
    }

    pub(super) async fn on_response(
        &self,
        store: &mut Store<State>,
        policy: ResourceAny,
        (facts, host, path, status, wanted): ResponseArguments<'_>,
    ) -> wasmtime::Result<http::Changes> {
        let function = self.on_response.typed::<OnResponse<'_>, (http::Changes,)>(&*store)?;
        Ok(function.call_async(store, (policy, facts, host, path, status, wanted)).await?.0)
    }
}
