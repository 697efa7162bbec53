use super::*;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn settings(document: &str) -> UpstreamSettings {
    contract::document::read_json(document).unwrap()
}

#[tokio::test]
async fn one_url_is_one_peer_as_it_was_set() {
    let upstream = Upstream::new("shop", UpstreamSettings::of("http://127.0.0.1:9")).unwrap();
    assert_eq!(upstream.pick(CLIENT, &[]).err(), Some(NoPeer::Unresolved));
    upstream.resolve().await.unwrap();
    let peer = upstream.pick(CLIENT, &[]).unwrap();
    assert_eq!(peer.template._address.to_string(), "127.0.0.1:9");
    let options = &peer.template.options;
    assert_eq!(options.connection_timeout, Some(Duration::from_secs(5)));
    assert_eq!(options.total_connection_timeout, Some(Duration::from_secs(10)));
    assert_eq!(options.read_timeout, Some(Duration::from_secs(60)));
    assert!(options.verify_cert && options.verify_hostname);
    assert!(!upstream.has_names());
}

#[tokio::test]
async fn each_peer_has_the_name_of_its_url_or_the_one_that_is_set() {
    let document = |more: &str| {
        format!(r#"{{"peers": [{{"url": "https://127.0.0.1:1"}}, {{"url": "https://localhost:2"}}]{more}}}"#)
    };
    for (more, first, second) in [("", "127.0.0.1", "localhost"), (r#", "server_name": "a.b""#, "a.b", "a.b")] {
        let upstream = Upstream::new("shop", settings(&document(more))).unwrap();
        upstream.resolve().await.unwrap();
        let peers = upstream.peers.load_full().unwrap();
        let name = |origin| peers.list.iter().find(|peer| peer.origin == origin).unwrap().template.sni.clone();
        assert_eq!((name(0).as_str(), name(1).as_str()), (first, second));
        assert!(upstream.has_names());
    }
}

#[tokio::test]
async fn an_address_that_stays_keeps_what_is_known_of_it() {
    let document =
        r#"{"peers": [{"url": "http://127.0.0.1:1"}, {"url": "http://localhost:1"}, {"url": "http://127.0.0.1:2"}]}"#;
    let upstream = Upstream::new("shop", settings(document)).unwrap();
    upstream.resolve().await.unwrap();
    let before = upstream.peers.load_full().unwrap();
    let same = before.list.iter().filter(|peer| peer.address.to_string() == "127.0.0.1:1").count();
    assert_eq!(same, 1, "two names of one address are one peer");
    before.list[0].checked(false, 1, 1);
    upstream.resolve().await.unwrap();
    let after = upstream.peers.load_full().unwrap();
    assert!(Arc::ptr_eq(&before, &after));
    assert_eq!(upstream.healthy(), after.list.len() - 1);
}

#[tokio::test]
async fn a_name_that_fails_loses_nothing_and_holds_nobody_up() {
    let document = r#"{"peers": [{"url": "http://nowhere.invalid"}, {"url": "http://127.0.0.1:2"}]}"#;
    let mut upstream = Upstream::new("shop", settings(document)).unwrap();
    let errors = upstream.resolve().await.unwrap_err();
    assert_eq!(errors.iter().map(|error| error.at.as_str()).collect::<Vec<_>>(), ["/peers/0/url"]);
    assert_eq!(upstream.healthy(), 1);
    upstream.origins[1].host = "gone.invalid".into();
    assert_eq!(upstream.resolve().await.unwrap_err().len(), 2);
    assert_eq!(upstream.healthy(), 1, "the address known so far stays");
}

#[test]
fn only_an_upstream_set_alike_may_stand_for_another() {
    let upstream = |document: &str| Upstream::new("shop", settings(document)).unwrap();
    let plain = upstream(r#"{"url": "http://127.0.0.1:1"}"#);
    assert!(plain.is_as(&upstream(r#"{"url": "http://127.0.0.1:1", "retries": 1}"#)));
    assert!(!plain.is_as(&upstream(r#"{"url": "http://127.0.0.1:1", "retries": 2}"#)));
    assert!(!plain.is_as(&upstream(r#"{"peers": [{"url": "http://127.0.0.1:1"}]}"#)));
}
