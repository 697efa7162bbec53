//! Databases of each kind, and of each layout.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::Connection;

use crate::config::{Places, Secret, StoreUrl};

/// Of its own, and what removes it.
pub(super) struct Fresh {
    pub url: Places,
    pub _folder: Option<tempfile::TempDir>,
}

impl Fresh {
    pub(super) fn is_mysql(&self) -> bool {
        matches!(self.url.store, StoreUrl::Mysql(_))
    }
}

/// Each kind with all in one database, and with bundles apart.
pub(super) async fn fresh() -> Vec<Fresh> {
    together().await.into_iter().chain(split().await).collect()
}

/// With all in one only: for what bundles have no part in.
pub(super) async fn together() -> Vec<Fresh> {
    let mut all = vec![sqlite(false)];
    if let Ok(server) = std::env::var("LATCHKEY_TEST_MYSQL_URL") {
        all.push(mysql(&server, false).await);
    }
    all
}

/// With bundles apart only.
pub(super) async fn split() -> Vec<Fresh> {
    let mut all = vec![sqlite(true)];
    if let Ok(server) = std::env::var("LATCHKEY_TEST_MYSQL_URL") {
        all.push(mysql(&server, true).await);
    }
    all
}

pub(super) fn sqlite(apart: bool) -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let bundles = apart.then(|| StoreUrl::Sqlite(folder.path().join("bundles.db")));
    let url = Places { store: StoreUrl::Sqlite(folder.path().join("test.db")), bundles };
    Fresh { url, _folder: Some(folder) }
}

async fn mysql(server: &str, apart: bool) -> Fresh {
    let store = database(server).await;
    let bundles = if apart { Some(database(server).await) } else { None };
    Fresh { url: Places { store, bundles }, _folder: None }
}

async fn database(server: &str) -> StoreUrl {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("latchkey_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut connection = sqlx::MySqlConnection::connect(server).await.unwrap();
    for statement in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name} CHARACTER SET latin1")]
    {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    }
    let (base, options) = server.split_once('?').map_or((server, ""), |(base, options)| (base, options));
    let (scheme, rest) = base.split_once("://").unwrap();
    let host = rest.split('/').next().unwrap();
    StoreUrl::Mysql(Secret::new(format!("{scheme}://{host}/{name}?{options}")))
}
