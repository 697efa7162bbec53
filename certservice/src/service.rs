//! Puts the rooms together, and runs them until it is told to stop.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use contract::signed::SigningKey;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify as Wake, watch};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::admin::{Api, Links, Progress, Server, router};
use crate::config::{Config, Listen};
use crate::dns::Zones;
use crate::doctor::Doctor;
use crate::intake::Rules;
use crate::issue::Issuer;
use crate::keys::{self, Keys};
use crate::notify::Notify;
use crate::observe::Metrics;
use crate::order::{Hands, Pace, Plan, Runner, ask_windows};
use crate::precheck::{Checks, Precheck};
use crate::renew::Planner;
use crate::store::Store;
use crate::tickets::Turning;
use crate::webhooks::Sender;
use crate::{instance, intake, renew, secret_file};

pub struct Service {
    server: Server,
    api: Arc<Api>,
    runner: Runner,
    tickets: Turning,
    planner: Planner,
    senders: Vec<Sender>,
    /// Wakes the search for renewals.
    hurry: Arc<Wake>,
    /// Held as long as the process lives.
    _lock: File,
}

impl Service {
    /// Opens everything and binds the socket; fails where an operator has to act. CAs and Redis may be down.
    pub async fn build(config: Config) -> Result<Self, String> {
        secret_file::make_folder(&config.data_dir)?;
        let (signing_key, pem) = signing_key(&config.data_dir)?;
        let signing_key = Arc::new(signing_key);
        let metrics = Arc::new(Metrics::new().map_err(|error| error.to_string())?);
        let store = Store::open(&config.store).await.map_err(|error| error.to_string())?;
        let keys = Keys::new(store.clone(), pem.as_bytes(), config.edges.clone());
        keys.begin().await.map_err(|error| format!("[edges] public_keys: {error}"))?;
        let notify = Notify::new(config.redis.as_ref(), store.clone(), signing_key.clone(), metrics.clone())?;
        let checks = checks(&config, signing_key.kid())?;
        let mut issuers = HashMap::new();
        for issuer in &config.issuers {
            let opened = Issuer::open(issuer, &config.data_dir);
            issuers.insert(issuer.name.clone(), opened.map_err(|says| format!("issuer `{}`: {says}", issuer.name))?);
        }
        let doctor = Doctor::new(&config, store.clone(), keys.clone(), notify.clone(), checks.clone())?;
        let tickets = Turning {
            store: store.clone(),
            notify: notify.clone(),
            keys: keys.clone(),
            metrics: metrics.clone(),
            pace: config.tickets,
        };
        let zones = Zones::open(&config.dns, checks.clone())?;
        let hands = Hands::new(issuers, keys.clone(), notify.clone(), checks.clone(), zones);
        let pace = Pace {
            retry_seconds_min: config.issuance.retry_seconds_min,
            retry_seconds_max: config.issuance.retry_seconds_max,
            rsa: config.issuance.rsa,
            issuers: config.domains.issuers.clone(),
            renewals_wait_seconds: config.issuance.renewals_wait_seconds,
        };
        let concurrency = config.issuance.concurrency;
        let ms_per_order = config.issuers.iter().map(|i| (i.name.clone(), i.ms_per_order(concurrency))).collect();
        let wildcards = config.issuers.iter().filter(|issuer| issuer.can_wildcards());
        let wildcards = wildcards.map(|issuer| issuer.name.clone()).collect();
        let limits: HashMap<_, _> = config.issuers.iter().map(|i| (i.name.clone(), i.limits)).collect();
        let names: Vec<_> = config.issuers.into_iter().map(|issuer| issuer.name).collect();
        store.know_issuers(&names).await.map_err(|error| error.to_string())?;
        let (holder, lock) = instance::begin(&config.data_dir, &store).await?;
        let mut senders = Vec::new();
        for webhook in config.webhooks {
            senders.push(Sender::open(store.clone(), webhook, holder.clone()).await?);
        }
        let planner = Planner::default();
        let (first_visits, renews) = (config.domains.first_visits, config.domains.renews);
        let plan = Plan { pace, concurrency, limits: limits.clone(), first_visits, holder };
        let runner = Runner::new(store.clone(), hands, metrics.clone(), plan, planner.clone());
        let rules = Rules {
            issuers: names,
            preferred: config.domains.issuers,
            wildcards,
            names_max: config.domains.names_per_registered_domain_max,
            www: config.domains.www,
            order: config.domains.order,
        };
        let api = Api {
            store,
            notify,
            signing_key,
            metrics,
            tokens: config.tokens,
            certificates: config.certificates,
            local: matches!(config.listen, Listen::Unix(_)),
            confidential: matches!(config.listen, Listen::Unix(_) | Listen::Tcp { tls: Some(_), .. }),
            rules,
            doctor,
            links: Links::new(pem.as_bytes()),
            keys,
            stopping: watch::Sender::new(false),
            listed: Arc::new(Wake::new()),
            progress: Progress::default(),
            checks,
            limits,
            first_visits,
            renews,
            ms_per_order,
            wake: Arc::new(Wake::new()),
            hands: runner.hands(),
        };
        let hurry = Arc::new(Wake::new());
        let server = Server::bind(&config.listen, &api.metrics.tls_files_unusable)?;
        Ok(Self { server, api: Arc::new(api), runner, planner, senders, hurry, tickets, _lock: lock })
    }

    /// Where the API is.
    pub fn address(&self) -> String {
        self.server.address()
    }

    /// Runs until SIGTERM or SIGINT.
    pub async fn run(self) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("signals can't be received: {error}");
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("told to stop");
            stop.send_replace(true);
        });
        self.run_until(stopping).await
    }

    /// An API without its runner would take domains and never serve them: if one part ends, all do.
    pub async fn run_until(self, stopping: watch::Receiver<bool>) -> Result<(), String> {
        tracing::info!(address = self.address(), "serving");
        let (store, wake) = (self.api.store.clone(), self.api.wake.clone());
        let (api, mut told) = (self.api.clone(), stopping.clone());
        tokio::spawn(async move {
            if told.wait_for(|stop| *stop).await.is_ok() {
                api.stopping.send_replace(true);
            }
        });
        let mut background = JoinSet::new();
        let hurry = self.hurry;
        background.spawn(ask_windows(store.clone(), self.runner.hands(), self.planner.clone(), hurry.clone()));
        background.spawn(self.runner.run(wake.clone()));
        let wake_orders = wake.clone();
        background.spawn(renew::run(store.clone(), self.planner, hurry, wake));
        background.spawn(intake::run(store.clone(), self.api.rules.clone(), self.api.listed.clone(), wake_orders));
        background.spawn(self.tickets.run());
        let (notify, metrics) = (self.api.notify.clone(), self.api.metrics.clone());
        background.spawn(keys::tidy(self.api.keys.clone(), notify, metrics));
        self.senders.into_iter().for_each(|sender| drop(background.spawn(sender.run())));
        background.spawn(self.api.notify.clone().sweep());
        background.spawn(store.clone().mind_bundles());
        let ended = tokio::select! {
            () = self.server.run(router(self.api), stopping) => Ok(()),
            _ = background.join_next() => Err("a background task ended, which it never should".to_owned()),
        };
        // Orders are stored before each act, so they can be left at any point.
        background.shutdown().await;
        store.close().await;
        tracing::info!("stopped");
        ended
    }
}

fn checks(config: &Config, kid: &str) -> Result<Checks, String> {
    let precheck = &config.precheck;
    let zones = config.dns.iter().flat_map(|provider| provider.zones.clone()).collect();
    let precheck = Precheck::open(precheck.resolver, precheck.targets.clone(), precheck.ports, zones, kid)?;
    let needs = config.issuers.iter().map(|issuer| (issuer.name.clone(), issuer.needs())).collect();
    Ok(Checks::new(precheck, needs))
}

/// What every edge believes CertService by, made on first start, and its text: what nobody without it can make is derived
/// from that.
fn signing_key(data_dir: &Path) -> Result<(SigningKey, Zeroizing<String>), String> {
    let (private, public) = (data_dir.join("signing.pem"), data_dir.join("signing.pub"));
    if !private.exists() {
        let (_, pem) = SigningKey::generate().map_err(|error| format!("making the signing key failed: {error}"))?;
        secret_file::write(&private, &pem)?;
    }
    let pem = secret_file::read(&private)?;
    let key = SigningKey::from_pem(&pem).map_err(|error| format!("{}: {error}", private.display()))?;
    // Written each time: it may have been lost, or belong to an older key.
    secret_file::write_public(&public, &key.public_pem())?;
    Ok((key, pem))
}

/// Keeps private keys out of core dumps.
pub fn forbid_core_dumps() -> Result<(), String> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let failed = |error: rustix::io::Errno| format!("core dumps can't be forbidden: {error}");
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(failed)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)
}
