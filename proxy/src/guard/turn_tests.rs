//! Whose turn it is: the visitor's, the upstream's, or that of the next request.

use super::*;

#[tokio::test(start_paused = true)]
async fn nothing_is_said_within_an_answer() {
    let stalled = async |written: &[&[u8]]| {
        let mut world = world();
        world.visitor.write_all(b"POST / HTTP/1.1\r\n\r\nbody").await.unwrap();
        world.read_now().await;
        let _open = OpenRequest::begin(&world.progress, Rest::Body);
        for bytes in written {
            world.guarded.write_all(bytes).await.unwrap();
            world.guarded.flush().await.unwrap();
        }
        assert_eq!(world.ended().await.0, Exceeded::BodyStalled);
        drop(world.guarded);
        let mut told = String::new();
        world.visitor.read_to_string(&mut told).await.unwrap();
        told
    };
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\nhalf";
    assert_eq!(stalled(&[half.as_bytes()]).await, half);
    let (interim, rest) = half.split_at(20);
    let hint = b"HTTP/1.1 103 Early Hints\r\n\r\n";
    assert_eq!(
        stalled(&[hint, interim.as_bytes(), rest.as_bytes()]).await,
        [str::from_utf8(hint).unwrap(), half].concat()
    );
    for before in [&b""[..], hint] {
        assert!(stalled(&[before]).await.contains("HTTP/1.1 408 "), "the answer is still due");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_leave_has_its_time_from_then_on() {
    let mut world = world();
    world.visitor.write_all(b"POST / HTTP/1.1\r\n\r\n").await.unwrap();
    world.read_now().await;
    let mut open = OpenRequest::begin(&world.progress, Rest::BodyWithLeave);
    assert!(tokio::time::timeout(Duration::from_secs(100), world.ended()).await.is_err());
    open.has_leave();
    assert_eq!(world.ended().await, (Exceeded::BodyStalled, 130));
}

#[tokio::test(start_paused = true)]
async fn what_comes_during_an_answer_is_read_after_it() {
    for (early, late, read) in [
        (&b"GET /b HTTP/1.1\r\n\r\n"[..], &b""[..], &b"GET /b HTTP/1.1\r\n\r\n"[..]),
        (b"\r\nGET", b" /b", b"GET /b"),
        (b"\r\n", b"GET", b"GET"),
        (&[b'x'; 10_000], b"", &[b'x'; 10_000]),
    ] {
        let mut world = world();
        world.visitor.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        world.read_now().await;
        let open = OpenRequest::begin(&world.progress, Rest::Nothing);
        world.visitor.write_all(early).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(3600), world.read_now()).await.is_err(), "not now");
        drop(open);
        world.visitor.write_all(late).await.unwrap();
        assert_eq!(world.guarded.read(&mut []).await.unwrap(), 0);
        let mut buffer = vec![0; read.len()];
        world.guarded.read_exact(&mut buffer).await.unwrap();
        assert_eq!(buffer, read);
        assert_eq!(world.ended().await, (Exceeded::HeaderTimeout, 3610), "it has its own time");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_connection_is_told_during_an_answer() {
    let mut world = world();
    world.visitor.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    world.read_now().await;
    let _open = OpenRequest::begin(&world.progress, Rest::Nothing);
    world.visitor.write_all(b"GET /b").await.unwrap();
    drop(world.visitor);
    assert_eq!(world.guarded.read(&mut [0; 1]).await.unwrap(), 0);
}
