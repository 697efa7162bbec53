//! Visitors who would undo, double or forge what a plugin says of them: `x-user`, `x-forwarded-user` and `x-admin`, which the
//! server that it asks tells, or does not tell.

use http::Request;
use support::visitor::Connection;

use super::{Asked, GUARDED};
use crate::protocols::{HTTP2, tls_to};

const GOOD: (&str, &str) = ("cookie", "s=good");

async fn get(connection: &mut Connection, more: &[(&str, &str)]) -> (u16, String) {
    let answer = connection.send("GET", GUARDED, "/cart", more, b"").await.unwrap();
    (answer.status, answer.text())
}

/// How the upstream was told of the visitor.
fn told(text: &str) -> Vec<&str> {
    let names = ["x-user", "x-forwarded-user", "x-admin"];
    let reads_as = |line: &str| line.split(':').next().unwrap_or_default().replace(['_', '.'], "-");
    let mut told: Vec<_> = text.lines().filter(|line| names.contains(&reads_as(line).as_str())).collect();
    told.sort_unstable();
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_field_of_a_visitor_stands_for_one_of_a_plugin() {
    let asked = Asked::start().await;
    let mut connection = asked.world.https(GUARDED).await;
    for (name, value) in [
        ("x-user", "1"),
        ("X_User", "1"),
        ("x.user", "1"),
        ("x_admin", "1"),
        ("X-Admin", "1"),
        ("x-forwarded-user", "1"),
        ("X_Forwarded-User", "1"),
        ("connection", "x-user"),
        ("connection", "keep-alive, X-User, x-forwarded-user"),
        ("connection", "x_user"),
    ] {
        let (status, text) = get(&mut connection, &[GOOD, (name, value)]).await;
        assert_eq!((status, told(&text)), (200, vec!["x-forwarded-user: 7", "x-user: 7"]), "{name}: {value}\n{text}");
    }
    // What is named ends here for the plugin too.
    assert_eq!(get(&mut connection, &[GOOD, ("connection", "cookie")]).await.0, 302);
    let before = asked.server.asked();
    for named in ["host", "x-forwarded-for", "x-user, \"x-admin\""] {
        let mut connection = asked.world.https(GUARDED).await;
        assert_eq!(get(&mut connection, &[GOOD, ("connection", named)]).await.0, 400, "{named}");
    }
    assert_eq!(asked.server.asked(), before, "of whom nobody is asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_judges_by_what_the_upstream_sees() {
    let asked = Asked::start().await;
    let mut connection = asked.world.https(GUARDED).await;
    let (status, text) = get(&mut connection, &[("cookie", "lang=en"), GOOD, ("x-list", "a"), ("x-list", "b")]).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(
        (text.matches("cookie: lang=en; s=good\n").count(), text.matches("x-list: a\nx-list: b\n").count()),
        (1, 1)
    );

    let (mut client, driver) = h2::client::handshake(tls_to(&asked.world, GUARDED, HTTP2).await).await.unwrap();
    let _driver = tokio::spawn(driver);
    let mut ask = async |cookies: &[&str], authorizations: usize| {
        let mut request = Request::get(format!("https://{GUARDED}/cart"));
        for cookie in cookies {
            request = request.header("cookie", *cookie);
        }
        for number in 0..authorizations {
            request = request.header("authorization", format!("Bearer {number}"));
        }
        let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
        let (head, mut body) = answer.await.unwrap().into_parts();
        let mut text = Vec::new();
        while let Some(piece) = body.data().await {
            text.extend(piece.unwrap());
        }
        (head.status.as_u16(), String::from_utf8(text).unwrap())
    };
    let (status, text) = ask(&["lang=en", "s=good"], 1).await;
    assert_eq!((status, text.matches("cookie: lang=en; s=good\n").count()), (200, 1), "{text}");
    let many = [vec!["a=1"; 120], vec!["s=good"]].concat();
    assert_eq!(ask(&many, 0).await.0, 200, "they are one field");

    let before = asked.server.asked();
    assert_eq!(ask(&["s=good"], 2).await.0, 400);
    for name in ["authorization", "content-type"] {
        let mut connection = asked.world.https(GUARDED).await;
        let (status, text) = get(&mut connection, &[GOOD, (name, "a"), (name, "b")]).await;
        assert!(status == 400 && text.contains(&format!("`{name}` more than once")), "{status} {text}");
    }
    assert_eq!(asked.server.asked(), before, "of whom nobody is asked");
}
