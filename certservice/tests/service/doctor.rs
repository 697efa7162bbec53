//! What the doctor finds where something is away, or over.

use std::net::TcpStream;

use contract::api::{DoctorCheck, DoctorReport};

use crate::process::{CertService, INTERNAL, LISTEN, free_port};

fn look(service: &CertService) -> DoctorReport {
    let answer = service.get("/v1/doctor");
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()))
}

fn of(report: &DoctorReport, id: &str) -> DoctorCheck {
    let check = report.checks.iter().find(|check| check.id == id);
    check.unwrap_or_else(|| panic!("{id} is not in {report:?}")).clone()
}

/// It does not hold, it says why, and what to do.
fn ill(report: &DoctorReport, id: &str, says: &str) {
    let check = of(report, id);
    assert_eq!(check.ok, Some(false), "{check:?}");
    assert!(check.says.contains(says) && check.fix.is_some_and(|fix| !fix.is_empty()) && !report.passed, "{report:?}");
}

#[test]
fn what_is_away_is_found_each_by_its_own_check() {
    let mut service = CertService::new("");
    let (redis, resolver, ca) = (free_port(), free_port(), free_port());
    let settings = format!(
        "[redis]\nurl = \"redis://127.0.0.1:{redis}\"\n[precheck]\naddresses = [\"127.0.0.99\", \"::1\"]\nresolver = \"127.0.0.1:{resolver}\"\n\
         [[issuers]]\nname = \"ca\"\nkind = \"acme\"\ndirectory = \"https://ca.example:{ca}/dir\"\ncontact = [\"mailto:a@b.example\"]\n"
    );
    service.configure(LISTEN, &settings);
    service.start();
    let report = look(&service);
    ill(&report, "redis", "does not answer");
    ill(&report, "dns", "ca.example");
    ill(&report, "ca ca", "can't be reached");
    // Nobody should listen there; where somebody does, that is told.
    for address in ["127.0.0.99", "::1"] {
        for port in [80, 443] {
            let taken = TcpStream::connect((address, port)).is_ok();
            assert_eq!(of(&report, &format!("port {port} of {address}")).ok, Some(taken), "{report:?}");
        }
    }
    assert_eq!(of(&report, "store").ok, Some(true), "{report:?}");
}

#[test]
fn certificates_that_have_ended_are_found() {
    let service = CertService::started(INTERNAL);
    assert_eq!(service.put("shop.example", "").status, 201);
    service.wait_live("shop.example");
    let well = look(&service);
    assert_eq!((of(&well, "certificates").ok, of(&well, "custody").ok), (Some(true), Some(true)), "{well:?}");
    let database = service.path("data/certservice.db");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&database);
        let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
        sqlx::query("UPDATE domains SET ends_at = 1").execute(&mut connection).await.unwrap();
    });
    ill(&look(&service), "certificates", "1 have ended");
}
