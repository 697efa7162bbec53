//! What `latchkey-proxy rewrap` does on an edge's host, beside the edge that serves: tries what other edges have wrapped for
//! this edge's key, and wraps what it opens for keys that the operator names here. Must never listen, be reached by a
//! request, or wrap for a key that nobody has named on this host: CertService and its database can't make it do so.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use contract::api::{RewrapOutcome, RewrapPage, Rewrapped, RewrappedBundle};
use contract::sealed::{EdgeKey, OpenError, WrapKey, prove, rewrap};
use contract::signed::{VerifyKeys, verify};
use contract::{Bundle, Hostname};
use serde::Serialize;

use crate::config::Config;
use crate::supply::{CertService, SupplyError};

/// Tries of one request, with pauses that double.
const TRIES_MAX: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);
/// Walks through what is left: bundles may be replaced while they are worked on.
const WALKS_MAX: u32 = 5;
/// Names of refused bundles that are shown.
const SHOWN_MAX: usize = 10;
/// Bundles between two lines that say how far it is.
const SAY_EVERY: u64 = 1000;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Boot file of the edge on this host
    #[arg(long, default_value = "/etc/latchkey/proxy.toml", env = "LATCHKEY_PROXY_CONFIG")]
    pub config: PathBuf,
    /// Public key (PEM) of another edge, for which all that this edge opens is wrapped; several times for several. Without
    /// it only what others have wrapped for this edge is tried
    #[arg(long, value_name = "KEY.pub")]
    pub to: Vec<PathBuf>,
    /// Bundles a second at most: the edge that serves on this host needs its processor
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub per_second: u32,
    /// Say how many bundles want something; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Tally {
    looked_at: u64,
    rewrapped: u64,
    confirmed: u64,
    removed: u64,
    refused: u64,
    /// Not signed by CertService, or not to be read.
    unverified: u64,
}

struct Walk<'a> {
    certservice: CertService,
    key: EdgeKey,
    verify_keys: VerifyKeys,
    to: Vec<WrapKey>,
    arguments: &'a Arguments,
    tally: Tally,
}

pub fn run(arguments: &Arguments) -> Result<(), String> {
    let config = Config::read(&arguments.config).map_err(|error| error.to_string())?;
    let mut walk = Walk {
        certservice: CertService::new(&config.certservice)?,
        key: config.edge_key,
        verify_keys: config.verify_keys,
        to: arguments.to.iter().map(wrap_key).collect::<Result<_, _>>()?,
        arguments,
        tally: Tally::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(|error| error.to_string())?.block_on(walk.all());
    walk.tell(&done);
    done?;
    match walk.tally.refused + walk.tally.unverified {
        0 => Ok(()),
        left => Err(format!("{left} bundles were left as they are, for the reasons above")),
    }
}

fn wrap_key(path: &PathBuf) -> Result<WrapKey, String> {
    let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    WrapKey::from_pem(&pem).map_err(|error| format!("{}: {error}", path.display()))
}

impl Walk<'_> {
    /// Until nothing is left that was replaced on the way.
    async fn all(&mut self) -> Result<(), String> {
        for _ in 0..WALKS_MAX {
            if self.once().await? == 0 {
                return Ok(());
            }
        }
        Err("bundles are replaced faster than they are re-wrapped; begin again later".to_owned())
    }

    /// All pages: how many bundles were replaced meanwhile. What is done is not offered again, so that one that was broken
    /// off goes on where it stopped.
    async fn once(&mut self) -> Result<usize, String> {
        let (mut after, mut outdated) = (String::new(), 0);
        loop {
            let began = Instant::now();
            let page = self.page(&after).await?;
            let count = page.bundles.len();
            if count > 0 && !self.arguments.dry_run {
                outdated += self.work(&page).await?;
            }
            self.count(count);
            let Some(next) = page.next else { return Ok(outdated) };
            after = next;
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let least = Duration::from_secs(1).saturating_mul(count) / self.arguments.per_second;
            tokio::time::sleep(least.saturating_sub(began.elapsed())).await;
        }
    }

    async fn page(&self, after: &str) -> Result<RewrapPage, String> {
        let kids: Vec<_> = self.to.iter().map(WrapKey::kid).collect();
        again(async || self.certservice.rewrap_page(self.key.kid(), &kids, after).await).await
    }

    /// How many were replaced meanwhile.
    async fn work(&mut self, page: &RewrapPage) -> Result<usize, String> {
        let mut bundles = Vec::new();
        for item in &page.bundles {
            match verify::<Bundle>(&item.token, &self.verify_keys) {
                Ok(bundle) => bundles.push(self.worked(&bundle, &item.version)?),
                Err(error) => {
                    self.tally.unverified += 1;
                    eprintln!("a bundle is not taken: {error}");
                }
            }
        }
        let body = Rewrapped { kid: self.key.kid().to_owned(), bundles };
        let body = serde_json::to_vec(&body).map_err(|error| error.to_string())?;
        let proof =
            prove(&page.challenge, &self.key, &body).map_err(|error| format!("CertService's challenge: {error}"))?;
        let outcome = again(async || self.certservice.rewrapped(&body, &proof).await).await?;
        self.take(&outcome);
        Ok(outcome.outdated.len())
    }

    /// Nothing is said of a key that could not be asked: the walk ends.
    fn worked(&self, bundle: &Bundle, version: &str) -> Result<RewrappedBundle, String> {
        let entries = bundle.certificates().map(|(_, sealed)| rewrap(sealed, &self.key, &self.to));
        let (opens, recipients) = match entries.collect::<Result<Vec<_>, _>>() {
            Ok(recipients) => (true, recipients),
            Err(error @ OpenError::Unavailable(_)) => return Err(error.to_string()),
            Err(error) => {
                eprintln!("{}: {error}", bundle.domain);
                (false, Vec::new())
            }
        };
        Ok(RewrappedBundle { name: bundle.domain.clone(), version: version.to_owned(), opens, recipients })
    }

    fn take(&mut self, outcome: &RewrapOutcome) {
        self.tally.rewrapped += outcome.rewrapped;
        self.tally.confirmed += outcome.confirmed;
        self.tally.removed += outcome.removed;
        for refusal in &outcome.refused {
            self.tally.refused += 1;
            if self.tally.refused <= SHOWN_MAX as u64 {
                let name: &Hostname = &refusal.name;
                eprintln!("{name}: {}", refusal.says);
            }
        }
    }

    fn count(&mut self, count: usize) {
        let before = self.tally.looked_at;
        self.tally.looked_at += count as u64;
        if !self.arguments.json && before / SAY_EVERY != self.tally.looked_at / SAY_EVERY {
            eprintln!("{} bundles looked at", self.tally.looked_at);
        }
    }

    fn tell(&self, done: &Result<(), String>) {
        let Tally { looked_at, rewrapped, confirmed, removed, .. } = &self.tally;
        if self.arguments.json {
            println!("{}", serde_json::to_string(&self.tally).unwrap_or_default());
        } else if self.arguments.dry_run {
            println!("{looked_at} bundles want something of edge key {}; nothing was changed", self.key.kid());
        } else {
            let end = if done.is_ok() { "" } else { "; begun again, it goes on where it stopped" };
            println!(
                "{looked_at} bundles looked at: {rewrapped} re-wrapped, {confirmed} confirmed for this edge's key, \
                 {removed} wrong entries taken out{end}"
            );
        }
    }
}

/// A CertService that restarts is waited for.
async fn again<T>(ask: impl AsyncFn() -> Result<T, SupplyError>) -> Result<T, String> {
    let (mut tries, mut pause) = (1, PAUSE);
    loop {
        match ask().await {
            Err(SupplyError::Unavailable(_)) if tries < TRIES_MAX => {
                tokio::time::sleep(pause).await;
                (tries, pause) = (tries + 1, pause * 2);
            }
            answer => return answer.map_err(|error| error.to_string()),
        }
    }
}
