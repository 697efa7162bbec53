//! Renewal, and the other databases, as the running service does them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use certservice::config::StoreUrl;
use certservice::renew::{Planner, create_orders, renew_at};
use certservice::store::Store;
use contract::Hostname;
use sqlx::Connection;
use tokio::runtime::Runtime;

use crate::edge::open_bundle;
use crate::process::{CertService, INTERNAL};

#[test]
fn a_renewal_brings_the_next_revision_with_a_new_key() {
    let service = CertService::started(INTERNAL);
    assert_eq!(service.put("shop.example", "").status, 201);
    let first = service.wait_live("shop.example").certificate.unwrap();
    let bundle = |service: &CertService| {
        let answer = service.get("/v1/bundles/shop.example");
        open_bundle(answer.text(), "shop.example", &service.verify_keys(), &service.edge)
    };
    let (_, first_key) = bundle(&service);

    // As the service itself does each minute, at a later hour.
    let runtime = Runtime::new().unwrap();
    let store = StoreUrl::Sqlite(service.path("data/certservice.db"));
    let store = runtime.block_on(Store::open(&store)).unwrap();
    let due = renew_at(&Hostname::parse("shop.example").unwrap(), first.not_before, first.not_after);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(due > now + Duration::from_secs(15 * 86_400).as_secs());
    assert_eq!(runtime.block_on(create_orders(&store, &Planner::default(), due - 62, due - 1)).unwrap(), 0);
    assert_eq!(runtime.block_on(create_orders(&store, &Planner::default(), due - 61, due)).unwrap(), 1);
    assert_eq!(runtime.block_on(create_orders(&store, &Planner::default(), due - 61, due)).unwrap(), 0);

    // The order is dated to that hour; bring it to now, as time would.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(service.path("data/certservice.db"));
    runtime.block_on(async {
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query("UPDATE jobs SET due_at = 0, place = 0").execute(&mut connection).await.unwrap();
    });
    let renewed = service.wait("shop.example", |domain| {
        domain.certificate.as_ref().is_some_and(|certificate| certificate.revision == 2)
    });
    assert_ne!(renewed.certificate.unwrap().serial, first.serial);
    let (second, second_key) = bundle(&service);
    assert_eq!(second.revision, 2);
    assert_ne!(first_key, second_key);
}

/// On the server that `LATCHKEY_TEST_MYSQL_URL` names, where it is set.
#[test]
fn mysql_serves_as_well() {
    let Ok(server) = std::env::var("LATCHKEY_TEST_MYSQL_URL") else {
        println!("LATCHKEY_TEST_MYSQL_URL is not set: only SQLite is tested");
        return;
    };
    let name = format!("latchkey_service_{}", std::process::id());
    let runtime = Runtime::new().unwrap();
    let run = |statement: String| {
        runtime.block_on(async {
            let mut connection = sqlx::MySqlConnection::connect(&server).await.unwrap();
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        });
    };
    run(format!("CREATE DATABASE {name}"));
    let (base, options) = server.split_once('?').map_or((&*server, String::new()), |(b, o)| (b, format!("?{o}")));
    let host = base.split('/').nth(2).unwrap();
    let mut service = CertService::new(&format!("{INTERNAL}[store]\nurl_file = \"url\"\n"));
    std::fs::write(service.path("url"), format!("mysql://{host}/{name}{options}\n")).unwrap();
    service.start();
    let names: Vec<_> = (0..20).map(|n| format!("n{n}.example")).collect();
    for name in &names {
        assert_eq!(service.put(name, "").status, 201);
    }
    service.kill();
    service.start();
    for name in &names {
        service.wait_live(name);
        let answer = service.get(&format!("/v1/bundles/{name}"));
        open_bundle(answer.text(), name, &service.verify_keys(), &service.edge);
    }
    run(format!("DROP DATABASE {name}"));
}
