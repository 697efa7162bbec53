//! The databases that a test runs on: SQLite always, MySQL/MariaDB where `LATCHKEY_TEST_MYSQL_URL` names a server.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::Connection;
use tokio::runtime::Runtime;

use crate::process::CertService;

/// One of a test's own, removed with it.
pub struct Database {
    /// `None` is SQLite, which lies in the service's folder.
    mysql: Option<Mysql>,
}

struct Mysql {
    server: String,
    name: String,
}

impl Database {
    /// `[store]` of a service, which finds the URL in a file of its folder.
    pub fn settings(&self, service: &CertService) -> String {
        match &self.mysql {
            None => String::new(),
            Some(mysql) => {
                service.write_secret("store.url", mysql.url());
                "[store]\nurl_file = \"store.url\"\n".to_owned()
            }
        }
    }
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

    fn url(&self) -> String {
        let (base, options) = self.server.split_once('?').unwrap_or((&self.server, ""));
        let (scheme, rest) = base.split_once("://").unwrap();
        format!("{scheme}://{}/{}?{options}", rest.split('/').next().unwrap(), self.name)
    }

    fn run(&self, what: &str) {
        let statement = format!("{what} {}", self.name);
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
    test(&Database { mysql: None });
    match std::env::var("LATCHKEY_TEST_MYSQL_URL") {
        Ok(server) => test(&Database { mysql: Some(Mysql::make(server)) }),
        Err(_) => println!("LATCHKEY_TEST_MYSQL_URL is not set: only SQLite is tested"),
    }
}
