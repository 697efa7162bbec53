use super::*;
use crate::upstream::UpstreamSettings;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

async fn upstream(peers: usize, retries: u32) -> Arc<Upstream> {
    let peers: Vec<_> =
        (1..=peers).map(|port| serde_json::json!({"url": format!("http://127.0.0.1:{port}")})).collect();
    let document = serde_json::json!({"peers": peers, "retries": retries}).to_string();
    let settings: UpstreamSettings = contract::document::read_json(&document).unwrap();
    let upstream = Arc::new(Upstream::new("shop", settings).unwrap());
    upstream.resolve().await.unwrap();
    upstream
}

fn refused() -> Box<Error> {
    Error::explain(ErrorType::ConnectRefused, "refused").into_up()
}

/// As Pingora says that a connection ended after so many bytes of an answer's head.
fn closed_after(bytes: usize) -> Box<Error> {
    let says = format!("while reading response headers, bytes already read: {bytes}");
    let mut error = Error::explain(ErrorType::ConnectionClosed, says).into_up();
    error.retry = pingora::RetryType::ReusedOnly;
    error
}

#[tokio::test]
async fn without_a_connection_other_peers_are_tried_as_often_as_set() {
    for (peers, retries, expected) in [(3, 0, 0), (3, 1, 1), (3, 2, 2), (3, 5, 2), (1, 5, 0)] {
        let upstream = upstream(peers, retries).await;
        let mut attempt = Attempt::default();
        let (mut further, mut seen) = (0, Vec::new());
        loop {
            let peer = attempt.pick(&upstream, CLIENT).unwrap();
            assert!(!seen.contains(&peer._address));
            seen.push(peer._address);
            if !attempt.not_connected(refused()).retry() {
                break;
            }
            further += 1;
        }
        assert_eq!(further, expected, "{peers} peers, {retries} retries");
    }
}

#[tokio::test]
async fn a_request_is_sent_again_only_where_that_is_safe() {
    let reset = |says: &str| Error::explain(ErrorType::WriteError, says.to_owned()).into_up();
    let by_visitor = || closed_after(0).into_down();
    let timed_out = || Error::explain(ErrorType::ReadTimedout, "while reading response headers").into_up();
    for (peers, error, repeat, reused, expected) in [
        (2, closed_after(0), Repeat::Yes, true, true),
        (2, closed_after(0), Repeat::Yes, false, true),
        (2, closed_after(0), Repeat::IfNotBegun, true, false),
        (2, closed_after(0), Repeat::Never, true, false),
        (2, closed_after(1), Repeat::Yes, true, false),
        (2, by_visitor(), Repeat::Yes, true, false),
        (2, timed_out(), Repeat::Yes, true, false),
        (2, reset("while writing request headers"), Repeat::Yes, true, true),
        (2, reset("while writing request headers"), Repeat::IfNotBegun, true, false),
        (2, reset("while writing body"), Repeat::Yes, true, false),
        (1, closed_after(0), Repeat::Yes, true, true),
        (1, closed_after(0), Repeat::Yes, false, false),
        // The peer says that it has not begun.
        (1, not_begun(ErrorType::H2Error), Repeat::Yes, false, true),
        (1, not_begun(ErrorType::H2Error), Repeat::IfNotBegun, false, true),
        (1, not_begun(ErrorType::H2Error), Repeat::Never, false, false),
        // Pingora would try these again, too: nobody says that nothing was done.
        (2, not_begun(ErrorType::InvalidH2), Repeat::IfNotBegun, true, false),
        (2, not_begun(ErrorType::H2Downgrade), Repeat::IfNotBegun, true, false),
    ] {
        let upstream = upstream(peers, 1).await;
        let mut attempt = Attempt::default();
        attempt.pick(&upstream, CLIENT).unwrap();
        let says = format!("{error} {repeat:?} reused={reused} peers={peers}");
        assert_eq!(attempt.broken(error, repeat, reused).retry(), expected, "{says}");
    }
}

/// As Pingora says that a stream was refused, or a connection ended without having begun with it.
fn not_begun(kind: ErrorType) -> Box<Error> {
    let mut error = Error::explain(kind, "while reading h2 header").into_up();
    error.set_retry(true);
    error
}

#[tokio::test]
async fn a_read_that_waits_for_the_visitor_is_not_the_peers_failure() {
    let timed_out = || Error::explain(ErrorType::ReadTimedout, "reading").into_up();
    for (fields, with_body, pieces, leave, culprit) in [
        (&[][..], true, &[][..], false, ErrorSource::Downstream),
        (&[], true, &[false], false, ErrorSource::Downstream),
        (&[], true, &[false, true], false, ErrorSource::Upstream),
        (&[], false, &[], false, ErrorSource::Upstream),
        // Whoever waits for leave, or for another protocol, waits for the peer.
        (&["expect"], true, &[], false, ErrorSource::Upstream),
        (&["expect"], true, &[], true, ErrorSource::Downstream),
        (&["expect"], true, &[false], false, ErrorSource::Downstream),
        (&["upgrade"], true, &[], false, ErrorSource::Upstream),
    ] {
        let upstream = upstream(1, 1).await;
        let mut request = RequestHeader::build("POST", b"/", None).unwrap();
        for field in fields {
            request.append_header(*field, "1").unwrap();
        }
        let mut last = None;
        for _ in 0..5 {
            let mut attempt = Attempt::default();
            attempt.pick(&upstream, CLIENT).unwrap();
            attempt.sends(&request, with_body);
            if leave {
                answers(&mut attempt, 100);
            }
            pieces.iter().for_each(|end| attempt.sends_on(*end));
            last = Some(attempt.broken(timed_out(), Repeat::Yes, false));
        }
        let error = last.unwrap();
        let blamed = upstream.healthy() == 0;
        let says = format!("{fields:?} {with_body} {pieces:?}");
        assert_eq!((error.esource(), blamed), (&culprit, culprit == ErrorSource::Upstream), "{says}");
        assert_eq!(*error.etype() == PAUSED, !blamed, "{says}");
        assert!(!error.retry(), "{says}");
    }
}

#[tokio::test]
async fn nothing_is_sent_again_twice_or_after_an_answer_began() {
    let upstream = upstream(3, 5).await;
    let mut attempt = Attempt::default();
    attempt.pick(&upstream, CLIENT).unwrap();
    assert!(attempt.broken(closed_after(0), Repeat::Yes, true).retry());
    attempt.pick(&upstream, CLIENT).unwrap();
    assert!(!attempt.broken(closed_after(0), Repeat::Yes, true).retry());
    attempt.pick(&upstream, CLIENT).unwrap();
    assert!(!attempt.broken(not_begun(ErrorType::H2Error), Repeat::Yes, true).retry(), "once, for either reason");

    for status in [100, 103, 200, 500] {
        let mut attempt = Attempt::default();
        attempt.pick(&upstream, CLIENT).unwrap();
        answers(&mut attempt, status);
        assert!(!attempt.broken(closed_after(0), Repeat::Yes, true).retry(), "{status}");
        attempt.pick(&upstream, CLIENT).unwrap();
        assert!(!attempt.broken(not_begun(ErrorType::H2Error), Repeat::Yes, true).retry(), "{status}");
    }
}

#[tokio::test]
async fn what_a_visitor_does_and_an_idle_connections_end_are_not_the_peers_failure() {
    let upstream = upstream(1, 0).await;
    let fail = |make: &dyn Fn(&mut Attempt)| {
        for _ in 0..10 {
            let mut attempt = Attempt::default();
            attempt.pick(&upstream, CLIENT).unwrap();
            make(&mut attempt);
        }
        upstream.healthy() == 0
    };
    assert!(!fail(&|attempt| drop(attempt.broken(closed_after(0).into_down(), Repeat::Yes, false))));
    assert!(!fail(&|attempt| drop(attempt.broken(closed_after(0), Repeat::Yes, true))));
    assert!(!fail(&|attempt| drop(attempt.broken(not_begun(ErrorType::H2Error), Repeat::Never, false))));
    assert!(!fail(&|attempt| answers(attempt, 404)));
    assert!(fail(&|attempt| answers(attempt, 500)));
    assert!(!fail(&|attempt| answers(attempt, 200)));
    assert!(fail(&|attempt| drop(attempt.broken(closed_after(7), Repeat::Yes, true))));
    assert!(!fail(&|attempt| answers(attempt, 200)));
    // This host had no socket for it.
    let none = || Error::explain(ErrorType::InternalError, "Fail to connect").into_up();
    assert!(!fail(&|attempt| assert_eq!(*attempt.not_connected(none()).esource(), ErrorSource::Internal)));
    assert!(fail(&|attempt| drop(attempt.not_connected(refused()))));
}

#[tokio::test]
async fn a_peer_counts_as_busy_until_the_request_ends() {
    let upstream = upstream(1, 0).await;
    let peer = upstream.pick(CLIENT, &[]).unwrap();
    let mut attempt = Attempt::default();
    attempt.pick(&upstream, CLIENT).unwrap();
    assert_eq!(peer.open(), 1);
    attempt.pick(&upstream, CLIENT).unwrap();
    assert_eq!(peer.open(), 1);
    drop(attempt);
    assert_eq!(peer.open(), 0);
}

#[tokio::test]
async fn why_there_is_no_peer_is_said() {
    let unresolved = Arc::new(Upstream::new("shop", UpstreamSettings::of("http://127.0.0.1:1")).unwrap());
    let error = Attempt::default().pick(&unresolved, CLIENT).unwrap_err();
    assert_eq!((error.etype(), error.esource()), (&ErrorType::ConnectNoRoute, &ErrorSource::Upstream));
    unresolved.resolve().await.unwrap();
    unresolved.pick(CLIENT, &[]).unwrap().checked(false, 1, 1);
    let error = Attempt::default().pick(&unresolved, CLIENT).unwrap_err();
    assert_eq!((error.etype(), error.esource()), (&NO_HEALTHY_PEER, &ErrorSource::Upstream));
}

fn answers(attempt: &mut Attempt, status: u16) {
    let (head, ()) = http::Response::builder().status(status).body(()).unwrap().into_parts();
    attempt.answered(&head).unwrap();
}

#[test]
fn an_endless_row_of_interim_answers_is_the_upstreams_fault_and_not_sent_again() {
    let mut attempt = Attempt::default();
    (0..16).for_each(|_| answers(&mut attempt, 103));
    let (head, ()) = http::Response::builder().status(103).body(()).unwrap().into_parts();
    let error = attempt.answered(&head).unwrap_err();
    assert_eq!((error.etype(), error.esource()), (&ErrorType::InvalidHTTPHeader, &ErrorSource::Upstream));
    assert!(!attempt.broken(error, Repeat::Yes, false).retry());
}
