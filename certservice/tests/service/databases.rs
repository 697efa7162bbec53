//! The databases that a test runs on: SQLite always, MySQL/MariaDB where `LATCHKEY_TEST_MYSQL_URL` names a server; with all in
//! one, or with bundles apart.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::runtime::Runtime;

use crate::process::CertService;

/// One of a test's own, removed with it.
pub struct Database {
    /// `None` is SQLite, which lies in the service's folder.
    mysql: Option<Mysql>,
    apart: bool,
    /// Of bundles that are apart; `None` is SQLite, too.
    bundles: Option<Mysql>,
}

pub struct Mysql {
    server: String,
    name: String,
}

impl Database {
    fn sqlite(apart: bool) -> Self {
        Self { mysql: None, apart, bundles: None }
    }

    fn mysql(server: &str, apart: bool) -> Self {
        let bundles = apart.then(|| Mysql::make(server.to_owned()));
        Self { mysql: Some(Mysql::make(server.to_owned())), apart, bundles }
    }

    /// `[store]` of a service, which finds the URLs in files of its folder.
    pub fn settings(&self, service: &CertService) -> String {
        self.settings_called(service, "bundles", None)
    }

    /// The same where SQLite's files are called so.
    pub fn settings_of(&self, service: &CertService, name: &str) -> String {
        self.settings_called(service, &format!("{name}-bundles"), Some(name))
    }

    fn settings_called(&self, service: &CertService, bundles: &str, name: Option<&str>) -> String {
        let store = match (&self.mysql, name) {
            (Some(mysql), _) => {
                service.write_secret("store.url", mysql.url());
                "url_file = \"store.url\"\n".to_owned()
            }
            (None, Some(name)) => format!("url = \"sqlite:{name}.db\"\n"),
            (None, None) => String::new(),
        };
        let bundles = match (&self.bundles, self.apart) {
            (Some(mysql), _) => {
                service.write_secret("bundles.url", mysql.url());
                "bundles_file = \"bundles.url\"\n".to_owned()
            }
            (None, true) => format!("bundles = \"sqlite:{bundles}.db\"\n"),
            (None, false) => String::new(),
        };
        match store.is_empty() && bundles.is_empty() {
            true => String::new(),
            false => format!("[store]\n{store}{bundles}"),
        }
    }

    pub fn is_apart(&self) -> bool {
        self.apart
    }

    pub fn rest(&self) -> Option<&Mysql> {
        self.mysql.as_ref()
    }

    pub fn bundles(&self) -> Option<&Mysql> {
        self.bundles.as_ref()
    }

    /// A statement that counts, on the database of bundles.
    pub fn count_bundles(&self, service: &CertService, statement: &'static str) -> i64 {
        Runtime::new().unwrap().block_on(async {
            match &self.bundles {
                None => {
                    let options = SqliteConnectOptions::new().filename(service.path("bundles.db"));
                    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
                    sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
                }
                Some(mysql) => {
                    let mut connection = sqlx::MySqlConnection::connect(&mysql.url()).await.unwrap();
                    sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
                }
            }
        })
    }

    /// Nobody announces a certificate until what is given back is dropped.
    pub fn hold_up(&self, service: &CertService) -> HeldUp {
        let runtime = Runtime::new().unwrap();
        let held = runtime.block_on(async {
            match &self.mysql {
                None => {
                    let options = SqliteConnectOptions::new().filename(service.path("data/certservice.db"));
                    let options = options.busy_timeout(Duration::from_secs(60));
                    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
                    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
                    Held::Sqlite(connection)
                }
                Some(mysql) => {
                    let mut connection = sqlx::MySqlConnection::connect(&mysql.url()).await.unwrap();
                    let hold = "START TRANSACTION; UPDATE changes_head SET `cursor` = `cursor` + 1";
                    sqlx::raw_sql(hold).execute(&mut connection).await.unwrap();
                    Held::Mysql(connection)
                }
            }
        });
        HeldUp { _held: held, _runtime: runtime }
    }
}

/// Its connection ends with it, and what it has begun.
pub struct HeldUp {
    _held: Held,
    _runtime: Runtime,
}

enum Held {
    Sqlite(#[expect(dead_code, reason = "held")] sqlx::SqliteConnection),
    Mysql(#[expect(dead_code, reason = "held")] sqlx::MySqlConnection),
}

impl Mysql {
    fn make(server: String) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("latchkey_service_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mysql = Self { server, name };
        mysql.run("DROP DATABASE IF EXISTS");
        mysql.run("CREATE DATABASE");
        mysql
    }

    pub fn url(&self) -> String {
        let (base, options) = self.server.split_once('?').unwrap_or((&self.server, ""));
        let (scheme, rest) = base.split_once("://").unwrap();
        format!("{scheme}://{}/{}?{options}", rest.split('/').next().unwrap(), self.name)
    }

    /// The URL of an account that may do this here, and nothing elsewhere.
    pub fn account(&self, user: &str, grants: &str) -> String {
        for statement in [
            format!("DROP USER IF EXISTS {user}@'127.0.0.1'"),
            format!("CREATE USER {user}@'127.0.0.1' IDENTIFIED BY 'test'"),
            format!("GRANT {grants} ON {}.* TO {user}@'127.0.0.1'", self.name),
        ] {
            self.execute(statement);
        }
        let url = self.url();
        format!("mysql://{user}:test@{}", url.split_once('@').unwrap().1)
    }

    fn run(&self, what: &str) {
        self.execute(format!("{what} {}", self.name));
    }

    fn execute(&self, statement: String) {
        Runtime::new().unwrap().block_on(async {
            let mut connection = sqlx::MySqlConnection::connect(&self.server).await.unwrap();
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        });
    }
}

impl Drop for Mysql {
    fn drop(&mut self) {
        self.run("DROP DATABASE IF EXISTS");
    }
}

pub fn on_each_database(test: impl Fn(&Database)) {
    on_each(&[false], test);
}

/// With bundles among the rest, and apart from it.
pub fn on_each_layout(test: impl Fn(&Database)) {
    on_each(&[false, true], test);
}

/// With bundles apart.
pub fn on_each_split(test: impl Fn(&Database)) {
    on_each(&[true], test);
}

fn on_each(layouts: &[bool], test: impl Fn(&Database)) {
    for apart in layouts {
        test(&Database::sqlite(*apart));
        match std::env::var("LATCHKEY_TEST_MYSQL_URL") {
            Ok(server) => test(&Database::mysql(&server, *apart)),
            Err(_) => println!("LATCHKEY_TEST_MYSQL_URL is not set: only SQLite is tested"),
        }
    }
}
