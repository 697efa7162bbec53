use crate::folder::Folder;
use crate::http1::Message;
use crate::upstream::Upstream;
use crate::visitor::Visitor;
use crate::{mariadb, pebble, port, proxy_header, redis};

#[tokio::test]
async fn the_upstream_tells_what_it_saw_and_keeps_the_connection() {
    let upstream = Upstream::start("sample", port::free().unwrap()).await.unwrap();
    let mut connection = Visitor::to(upstream.address).from([127, 0, 0, 2]).http().await.unwrap();
    let first = connection.get("shop.example", "/a?b=c").await.unwrap();
    assert_eq!(first.seen("path").as_deref(), Some("/a?b=c"));
    let second = connection.send("POST", "shop.example", "/", &[("x-one", "1")], b"12345").await.unwrap();
    assert_eq!(second.seen("body-bytes").as_deref(), Some("5"));
    assert_eq!(second.seen("x-one").as_deref(), Some("1"));
    let third = connection.send("HEAD", "shop.example", "/?respond-with=x-two:2", &[], b"").await.unwrap();
    assert_eq!((third.header("x-two"), third.text().as_str()), (Some("2"), ""));
}

#[test]
fn proxy_headers_are_as_the_specification_shows_them() {
    let (client, server) = ("192.0.2.7:56324".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    assert_eq!(proxy_header::v1(client, server), b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n");
    let v2 = proxy_header::v2(client, server);
    assert_eq!(v2[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(v2[16..], [192, 0, 2, 7, 198, 51, 100, 1, 220, 4, 1, 187]);
}

#[test]
fn a_message_says_when_its_connection_ends() {
    let with = |headers: &[(&str, &str)]| Message {
        start_line: "GET / HTTP/1.1".into(),
        headers: headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        body: Vec::new(),
    };
    assert!(with(&[("Connection", "Close")]).closes());
    assert!(!with(&[("Connection", "keep-alive")]).closes());
}

#[tokio::test]
async fn stores_and_test_ca_start_and_answer() {
    let folder = Folder::new().unwrap();
    let redis = redis::Redis::start(folder.path()).await.unwrap();
    redis.set("key", "a value to be found").await.unwrap();
    let dump = redis.dump().await.unwrap();
    assert!(dump.windows(7).any(|bytes| bytes == b"a value"));

    let (http, tls) = (port::free().unwrap().port(), port::free().unwrap().port());
    let pebble = pebble::Pebble::start(folder.path(), http, tls).await.unwrap();
    assert!(pebble.issuing_root().await.unwrap().contains("BEGIN CERTIFICATE"));

    let mut mariadb = mariadb::MariaDb::start(folder.path()).await.unwrap();
    assert!(mariadb.process.stop().await.unwrap().success());
}
