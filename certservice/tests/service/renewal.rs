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
    let store = runtime.block_on(Store::open(&store.into())).unwrap();
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

#[test]
fn a_forecast_says_what_would_end_and_alerts_have_their_numbers() {
    let settings = format!("{INTERNAL}[[issuers]]\nname = \"short\"\nkind = \"internal\"\nvalidity_days = 2\n");
    let service = CertService::started(&settings);
    assert_eq!(service.put("long.example", "").status, 201);
    assert_eq!(service.put("short.example", r#"{"issuer": "short"}"#).status, 201);
    for name in ["long.example", "short.example"] {
        service.wait_live(name);
    }
    let forecast = |seconds: u64| -> contract::api::Forecast {
        let answer = service.get(&format!("/v1/forecast?ca_down_seconds={seconds}"));
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()))
    };
    let now = forecast(0);
    assert_eq!((now.ended, now.outage.would_end, now.days.len()), (0, 0, 60));
    assert_eq!(now.days.iter().map(|day| day.renewals).sum::<u64>(), 2);
    assert_eq!(now.issuers.iter().map(|issuer| issuer.certificates).collect::<Vec<_>>(), [1, 1]);
    let end = service.domain("short.example").certificate.unwrap().not_after;
    assert_eq!(now.soonest_end, Some(end));
    let down = forecast(3 * 86_400).outage;
    assert_eq!((down.would_end, down.held_up), (1, 1));
    assert_eq!((down.first[0].name.as_str(), down.first[0].ends_at), ("short.example", end));
    assert_eq!(forecast(40 * 86_400).outage.would_end, 2);
    assert_eq!(service.get("/v1/forecast?ca_down_seconds=99999999999").status, 400);

    let metrics = service.get("/metrics").text().to_owned();
    let value = |line: &str| {
        let of = metrics.lines().find_map(|have| have.strip_prefix(line));
        of.unwrap_or_else(|| panic!("{line} is not in\n{metrics}")).trim().parse::<i64>().unwrap()
    };
    assert_eq!(value("latchkey_certservice_domains{state=\"live\"}"), 2);
    assert_eq!(value("latchkey_certservice_remaining_lifetime_ratio_bucket{le=\"0.5\"}"), 0);
    assert_eq!(value("latchkey_certservice_remaining_lifetime_ratio_bucket{le=\"+Inf\"}"), 2);
    let soonest = value("latchkey_certservice_soonest_end_seconds");
    assert!((86_400..=2 * 86_400).contains(&soonest), "{soonest}");
    for lane in ["visitor", "renewal", "new", "bulk"] {
        assert_eq!(value(&format!("latchkey_certservice_queue{{lane=\"{lane}\"}}")), 0);
        assert_eq!(value(&format!("latchkey_certservice_queue_oldest_seconds{{lane=\"{lane}\"}}")), 0);
    }
}
