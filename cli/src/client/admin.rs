use std::path::PathBuf;

use contract::admin::{
    Applied, AuditEntry, AuditPage, Crashes, Plan, PluginInfo, Plugins, Preview, Previewed, Ranking, Readiness,
    Revision, Revisions, Shadow, Shadows, TableInfo, Tables, UnusedRules,
};
use contract::bundle::sha256;
use contract::plugin::SIGNATURE_HEADER;
use reqwest::{Client, RequestBuilder, StatusCode, Url};

use super::credentials::{Credentials, read};
use super::{ClientError, Target, header};
use crate::args::AdminArgs;

pub struct Admin {
    target: Target,
    client: Client,
}

/// Whether a configuration is put in force or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    Apply,
    Plan,
}

/// What becomes of shadows.
#[derive(Debug, Clone)]
pub enum ShadowChange {
    /// With these settings.
    Start(serde_json::Value),
    Promote,
    Drop,
}

/// What goes along with a configuration.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub intent: Intent,
    pub if_match: Option<&'a str>,
    pub message: &'a str,
}

impl Order<'_> {
    pub const APPLY: Self = Self { intent: Intent::Apply, if_match: None, message: "" };
    pub const PLAN: Self = Self { intent: Intent::Plan, ..Self::APPLY };
}

impl Admin {
    pub fn new(args: &AdminArgs) -> Result<Self, ClientError> {
        let token = args.admin_token_file.as_deref().map(read).transpose()?.map(|token| token.trim().to_owned());
        let identity = args.admin_cert_file.as_deref().zip(args.admin_key_file.as_deref());
        let credentials = Credentials::read(token, args.admin_ca_file.as_deref(), identity)?;
        Ok(Self { client: args.admin.client(|builder| credentials.configure(builder))?, target: args.admin.clone() })
    }

    /// By its socket.
    pub fn local(socket: PathBuf) -> Result<Self, ClientError> {
        let target = Target::Unix(socket);
        Ok(Self { client: target.client(|builder| builder)?, target })
    }

    /// Newest first.
    pub async fn audit(&self, limit: u16) -> Result<Vec<AuditEntry>, ClientError> {
        let page: AuditPage =
            self.target.json(self.client.get(self.target.url(&format!("/v1/audit?limit={limit}")))).await?;
        Ok(page.entries)
    }

    /// The configuration as it was applied, and its ETag.
    pub async fn config(&self) -> Result<(String, Option<String>), ClientError> {
        let response = self.target.send(self.client.get(self.target.url("/v1/config"))).await?;
        let etag = header(&response, "etag");
        Ok((response.text().await.map_err(|error| self.target.unreachable(&error))?, etag))
    }

    /// Checks a configuration, and puts it in force where that is the order.
    pub async fn apply(&self, config: String, order: Order<'_>) -> Result<Applied, ClientError> {
        let request = self.client.put(self.ordered("/v1/config", order));
        let request = request.header("content-type", "application/json").body(config);
        self.target.json(matched(request, order)).await
    }

    /// Takes up an earlier revision again.
    pub async fn revert(&self, revision: u64, order: Order<'_>) -> Result<Applied, ClientError> {
        let request = self.client.post(self.ordered(&format!("/v1/revisions/{revision}/revert"), order));
        self.target.json(matched(request, order)).await
    }

    /// Newest first.
    pub async fn revisions(&self) -> Result<Vec<Revision>, ClientError> {
        let answer: Revisions = self.target.json(self.client.get(self.target.url("/v1/revisions"))).await?;
        Ok(answer.revisions)
    }

    /// What a revision changed, compared with `since` or with the one before.
    pub async fn diff(&self, revision: u64, since: Option<u64>) -> Result<Plan, ClientError> {
        let since = since.map(|since| format!("?since={since}")).unwrap_or_default();
        let path = format!("/v1/revisions/{revision}/diff{since}");
        self.target.json(self.client.get(self.target.url(&path))).await
    }

    fn ordered(&self, path: &str, order: Order<'_>) -> String {
        let url = self.target.url(path);
        let mut parameters = Vec::new();
        if order.intent == Intent::Plan {
            parameters.push(("dry_run", "true".to_owned()));
        }
        if !order.message.is_empty() {
            parameters.push(("message", order.message.to_owned()));
        }
        // Many people become one user to reach the socket.
        if let Ok(by) = std::env::var("SUDO_USER") {
            parameters.push(("by", by));
        }
        Url::parse_with_params(&url, parameters).map_or(url, String::from)
    }

    /// Uploads a component: its digest, and whether the proxy did not have it yet.
    pub async fn push(&self, component: Vec<u8>, signature: Option<&str>) -> Result<(String, bool), ClientError> {
        let hex: String = sha256(&component).iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        let url = self.target.url(&format!("/v1/plugins/{digest}"));
        let mut request = self.client.put(url).header("content-type", "application/wasm").body(component);
        if let Some(signature) = signature {
            request = request.header(SIGNATURE_HEADER, signature.trim_end());
        }
        let response = self.target.send(request).await?;
        Ok((digest, response.status() == StatusCode::CREATED))
    }

    pub async fn plugins(&self) -> Result<Vec<PluginInfo>, ClientError> {
        let answer: Plugins = self.target.json(self.client.get(self.target.url("/v1/plugins"))).await?;
        Ok(answer.plugins)
    }

    /// Uploads a table as it is read: its digest, and whether the proxy did not have it yet.
    pub async fn push_table(&self, file: std::fs::File, digest: &str) -> Result<bool, ClientError> {
        let length = file.metadata().map_or(0, |about| about.len());
        let request = self.client.put(self.target.url(&format!("/v1/tables/{digest}")));
        let request = request.header("content-length", length).body(tokio::fs::File::from_std(file));
        let response = self.target.send(request).await?;
        Ok(response.status() == StatusCode::CREATED)
    }

    pub async fn tables(&self) -> Result<Vec<TableInfo>, ClientError> {
        let answer: Tables = self.target.json(self.client.get(self.target.url("/v1/tables"))).await?;
        Ok(answer.tables)
    }

    pub async fn remove_table(&self, digest: &str) -> Result<(), ClientError> {
        self.target.send(self.client.delete(self.target.url(&format!("/v1/tables/{digest}")))).await.map(drop)
    }

    pub async fn crashes(&self, name: &str) -> Result<Crashes, ClientError> {
        self.target.json(self.client.get(self.target.url(&of_plugin(name, "crashes")))).await
    }

    /// The shadows beside a plugin's bindings.
    pub async fn shadows(&self, name: &str) -> Result<Vec<Shadow>, ClientError> {
        let answer: Shadows = self.target.json(self.client.get(self.target.url(&of_plugin(name, "shadow")))).await?;
        Ok(answer.shadows)
    }

    /// Starts, promotes or drops them; `at`: only that of this binding.
    pub async fn shadow(
        &self,
        name: &str,
        change: ShadowChange,
        at: Option<&str>,
        order: Order<'_>,
    ) -> Result<Applied, ClientError> {
        let tail = if matches!(change, ShadowChange::Promote) { "shadow/promote" } else { "shadow" };
        let url = self.ordered(&of_plugin(name, tail), order);
        let url = match at {
            Some(at) => Url::parse_with_params(&url, [("at", at)]).map_or(url, String::from),
            None => url,
        };
        let request = match change {
            ShadowChange::Start(settings) => self.client.put(url).json(&settings),
            ShadowChange::Promote => self.client.post(url),
            ShadowChange::Drop => self.client.delete(url),
        };
        self.target.json(matched(request, order)).await
    }

    /// What a plugin would do to answers of these hosts at these moments.
    pub async fn preview(&self, plugin: &str, asked: &Preview) -> Result<Previewed, ClientError> {
        self.target.json(self.client.post(self.target.url(&of_plugin(plugin, "preview"))).json(asked)).await
    }

    /// Rules that have not decided for so many days.
    pub async fn unused_rules(&self, plugin: &str, days: u64) -> Result<UnusedRules, ClientError> {
        let path = of_plugin(plugin, &format!("rules?unused_days={days}"));
        self.target.json(self.client.get(self.target.url(&path))).await
    }

    pub async fn top(&self, by: &str, n: u16) -> Result<Ranking, ClientError> {
        self.target.json(self.client.get(self.target.url(&format!("/v1/top?by={by}&n={n}")))).await
    }

    pub async fn readiness(&self) -> Result<Readiness, ClientError> {
        let request = self.client.get(self.target.url("/readyz"));
        let response = request.send().await.map_err(|error| self.target.unreachable(&error))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| self.target.unreachable(&error))?;
        serde_json::from_str(&text).map_err(|_| ClientError::Unexpected { target: self.target.clone(), status, text })
    }
}

/// A name is chosen by people.
fn of_plugin(name: &str, tail: &str) -> String {
    let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("/v1/plugins/{name}/{tail}")
}

fn matched(request: RequestBuilder, order: Order<'_>) -> RequestBuilder {
    match order.if_match {
        Some(etag) => request.header("if-match", etag),
        None => request,
    }
}
