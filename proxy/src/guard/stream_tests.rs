//! Over a real socket pair, with the runtime's clock paused: it moves on when everybody waits.

use std::future::pending;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::super::limits::test_limits;
use super::super::progress::{OpenRequest, Rest};
use super::*;
use crate::guard::Flaw;

#[path = "turn_tests.rs"]
mod turns;

struct World {
    visitor: UnixStream,
    guarded: Guarded<UnixStream>,
    progress: Arc<Progress>,
    started: Instant,
}

fn world() -> World {
    let (visitor, server) = UnixStream::pair().unwrap();
    let progress = Arc::<Progress>::default();
    let guarded = Guarded::new(server, Arc::new(test_limits()), progress.clone());
    World { visitor, guarded, progress, started: Instant::now() }
}

impl World {
    /// Reads until the guard ends the connection: why, and after how many seconds.
    async fn ended(&mut self) -> (Exceeded, u64) {
        let mut buffer = [0; 4096];
        loop {
            match self.guarded.read(&mut buffer).await {
                Ok(0) => panic!("the visitor closed"),
                Ok(_) => {}
                Err(error) => {
                    let exceeded = *error.get_ref().unwrap().downcast_ref::<Exceeded>().unwrap();
                    return (exceeded, self.started.elapsed().as_secs());
                }
            }
        }
    }

    async fn read_now(&mut self) {
        let mut buffer = [0; 4096];
        assert!(self.guarded.read(&mut buffer).await.unwrap() > 0);
    }

    async fn drips(mut visitor: UnixStream, every: Duration, bytes: &'static [u8]) {
        loop {
            tokio::time::sleep(every).await;
            if visitor.write_all(bytes).await.is_err() {
                pending::<()>().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silence_after_the_handshake_ends() {
    assert_eq!(world().ended().await, (Exceeded::HeaderTimeout, 10));
}

#[tokio::test(start_paused = true)]
async fn a_header_that_drips_ends_at_its_total_deadline() {
    let mut world = world();
    let (visitor, _unused) = UnixStream::pair().unwrap();
    let visitor = std::mem::replace(&mut world.visitor, visitor);
    let ended = tokio::select! {
        ended = world.ended() => ended,
        () = World::drips(visitor, Duration::from_secs(3), b"x") => unreachable!(),
    };
    // The first byte came after 3 s; the header has 10 s from there.
    assert_eq!(ended, (Exceeded::HeaderTimeout, 13));
}

#[tokio::test(start_paused = true)]
async fn a_visitor_is_told_before_the_connection_ends() {
    let mut world = world();
    world.visitor.write_all(b"GET / HT").await.unwrap();
    world.ended().await;
    drop(world.guarded);
    let mut told = String::new();
    world.visitor.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn between_requests_the_keepalive_timeout_holds() {
    let mut world = world();
    world.visitor.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    world.read_now().await;
    drop(OpenRequest::begin(&world.progress, Rest::Nothing));
    assert_eq!(world.ended().await, (Exceeded::Idle, 60));
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_not_the_visitors_fault() {
    let mut world = world();
    world.visitor.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    world.read_now().await;
    let _open = OpenRequest::begin(&world.progress, Rest::Nothing);
    let waited = tokio::time::timeout(Duration::from_secs(3600), world.ended()).await;
    assert!(waited.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_ends_and_one_that_drips_too() {
    let mut world = world();
    world.visitor.write_all(b"POST / HTTP/1.1\r\n\r\nbody").await.unwrap();
    world.read_now().await;
    let open = OpenRequest::begin(&world.progress, Rest::Body);
    assert_eq!(world.ended().await, (Exceeded::BodyStalled, 30));
    drop(open);

    let mut world = self::world();
    world.visitor.write_all(b"POST / HTTP/1.1\r\n\r\nbody").await.unwrap();
    world.read_now().await;
    let _open = OpenRequest::begin(&world.progress, Rest::Body);
    let (visitor, _unused) = UnixStream::pair().unwrap();
    let visitor = std::mem::replace(&mut world.visitor, visitor);
    let ended = tokio::select! {
        ended = world.ended() => ended,
        () = World::drips(visitor, Duration::from_secs(7), b"x") => unreachable!(),
    };
    assert_eq!(ended, (Exceeded::BodyTooSlow, 30));
}

#[tokio::test(start_paused = true)]
async fn a_steady_upload_may_take_as_long_as_it_needs() {
    let mut world = world();
    world.visitor.write_all(b"POST / HTTP/1.1\r\n\r\n").await.unwrap();
    world.read_now().await;
    let _open = OpenRequest::begin(&world.progress, Rest::Body);
    let (visitor, _unused) = UnixStream::pair().unwrap();
    let visitor = std::mem::replace(&mut world.visitor, visitor);
    let ended = tokio::select! {
        ended = world.ended() => Some(ended),
        () = World::drips(visitor, Duration::from_secs(1), &[b'x'; 600]) => None,
        () = tokio::time::sleep(Duration::from_secs(7200)) => None,
    };
    assert_eq!(ended, None);
}

#[tokio::test(start_paused = true)]
async fn a_visitor_who_does_not_read_ends() {
    let mut world = world();
    let chunk = [0; 64 * 1024];
    let mut sent = 0;
    let ended = loop {
        match world.guarded.write(&chunk).await {
            Ok(bytes) => sent += bytes,
            Err(error) => break error,
        }
    };
    assert!(sent > 0);
    assert_eq!(ended.get_ref().unwrap().downcast_ref::<Exceeded>(), Some(&Exceeded::NotReading));
    assert_eq!(world.started.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn what_a_visitor_read_once_buys_it_no_time_to_stall() {
    let mut world = world();
    let (unused, _unused) = UnixStream::pair().unwrap();
    let visitor = std::mem::replace(&mut world.visitor, unused);
    let chunk = [0; 64 * 1024];
    let writes = async { while world.guarded.write(&chunk).await.is_ok() {} };
    let reads_once = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        while visitor.try_read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
        pending::<()>().await;
    };
    tokio::select! {
        () = writes => {}
        () = reads_once => unreachable!(),
    }
    assert_eq!(world.started.elapsed().as_secs(), 40);
}

#[tokio::test(start_paused = true)]
async fn bytes_pass_unchanged() {
    let mut world = world();
    world.visitor.write_all(b"ping").await.unwrap();
    let mut read = [0; 4];
    world.guarded.read_exact(&mut read).await.unwrap();
    let _open = OpenRequest::begin(&world.progress, Rest::Nothing);
    world.guarded.write_all(b"pong").await.unwrap();
    world.guarded.flush().await.unwrap();
    let mut answered = [0; 4];
    world.visitor.read_exact(&mut answered).await.unwrap();
    assert_eq!((&read, &answered), (b"ping", b"pong"));
}

#[tokio::test(start_paused = true)]
async fn an_endless_header_ends_by_its_size() {
    let mut world = world();
    let (visitor, _unused) = UnixStream::pair().unwrap();
    let visitor = std::mem::replace(&mut world.visitor, visitor);
    let ended = tokio::select! {
        ended = world.ended() => ended,
        () = World::drips(visitor, Duration::from_millis(1), &[b'x'; 4096]) => unreachable!(),
    };
    assert_eq!(ended, (Exceeded::HeaderTooLarge, 0));
}

/// What the visitor has been sent so far.
async fn sent(world: &World) -> usize {
    let mut buffer = vec![0; 64 * 1024];
    let _ = tokio::time::timeout(Duration::from_millis(1), world.visitor.readable()).await;
    world.visitor.try_read(&mut buffer).unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn small_writes_go_out_together_at_the_flush() {
    let mut world = world();
    world.guarded.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    assert_eq!(sent(&world).await, 0);
    world.guarded.write_all(b"hello").await.unwrap();
    assert_eq!(sent(&world).await, 0);
    world.guarded.flush().await.unwrap();
    assert_eq!(sent(&world).await, 43);
    world.guarded.write_all(b"last").await.unwrap();
    AsyncWriteExt::shutdown(&mut world.guarded).await.unwrap();
    assert_eq!(sent(&world).await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_not_held_back_and_keeps_its_place() {
    let mut world = world();
    world.guarded.write_all(&[b'x'; 1460]).await.unwrap();
    assert_eq!(sent(&world).await, 1460, "as large as a segment");
    world.guarded.write_all(b"small").await.unwrap();
    world.guarded.write_all(&[b'x'; 40_000]).await.unwrap();
    let mut read = vec![0; 40_005];
    let (visitor, guarded) = (&mut world.visitor, &mut world.guarded);
    let (read_all, flushed) = tokio::join!(visitor.read_exact(&mut read), guarded.flush());
    read_all.unwrap();
    flushed.unwrap();
    assert_eq!(&read[..6], b"smallx");
    assert!(read[5..].iter().all(|byte| *byte == b'x'));
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_write_keep_their_order() {
    let mut world = world();
    let large = [b'l'; 5000];
    let parts = [&b"one"[..], b"", &large, b"two", &large, b"three"];
    let expected = parts.concat();
    let mut rest = &mut parts.map(io::IoSlice::new)[..];
    while !rest.is_empty() {
        let written = world.guarded.write_vectored(rest).await.unwrap();
        io::IoSlice::advance_slices(&mut rest, written);
    }
    world.guarded.flush().await.unwrap();
    let mut read = vec![0; expected.len()];
    world.visitor.read_exact(&mut read).await.unwrap();
    assert_eq!(read, expected);
}

#[tokio::test(start_paused = true)]
async fn what_the_socket_did_not_take_goes_out_while_the_request_is_waited_for() {
    let mut world = world();
    let mut written = 0;
    while let Ok(more) = tokio::time::timeout(Duration::from_secs(1), world.guarded.write(&[b'x'; 1000])).await {
        written += more.unwrap();
    }
    let (mut visitor, mut guarded) = (world.visitor, world.guarded);
    let mut buffer = [0; 1];
    tokio::select! {
        biased;
        _ = guarded.read(&mut buffer) => unreachable!("the visitor sends nothing"),
        read = async { visitor.read_exact(&mut vec![0; written]).await } => assert_eq!(read.unwrap(), written),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_not_lost_with_the_connection() {
    let mut world = world();
    world.guarded.write_all(b"half a resp").await.unwrap();
    drop(world.guarded);
    let mut told = String::new();
    world.visitor.read_to_string(&mut told).await.unwrap();
    assert_eq!(told, "half a resp");
}

#[tokio::test(start_paused = true)]
async fn a_read_of_nothing_waits_for_something_and_takes_nothing_away() {
    let mut world = world();
    assert!(tokio::time::timeout(Duration::from_secs(1), world.guarded.read(&mut [])).await.is_err());
    world.visitor.write_all(&[b'x'; 5000]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(world.guarded.read(&mut []).await.unwrap(), 0);
    }
    let mut read = vec![0; 5000];
    world.guarded.read_exact(&mut read).await.unwrap();
    assert!(read.iter().all(|byte| *byte == b'x'));

    let mut world = self::world();
    let ended = world.guarded.read(&mut []).await.unwrap_err();
    assert_eq!(ended.get_ref().unwrap().downcast_ref(), Some(&Exceeded::HeaderTimeout), "with the same deadlines");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_library_refuses_gets_our_page_once() {
    let mut world = world();
    world.visitor.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(world.guarded.read(&mut []).await.unwrap(), 0);
    world.read_now().await;
    let open = OpenRequest::begin(&world.progress, Rest::Nothing);
    world.guarded.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    world.guarded.flush().await.unwrap();
    drop(open);
    assert_eq!(world.progress.refusal(), None);
    world.visitor.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").await.unwrap();
    assert_eq!(world.guarded.read(&mut []).await.unwrap(), 0);
    world.read_now().await;
    world.guarded.write_all(b"HTTP/1.1 400 ").await.unwrap();
    world.guarded.flush().await.unwrap();
    world.guarded.write_all(b"Bad Request\r\n\r\n").await.unwrap();
    world.guarded.flush().await.unwrap();
    let refusal = world.progress.refusal().unwrap();
    assert_eq!(refusal.why, Flaw::Hosts(2));
    drop(world.guarded);
    let mut answers = Vec::new();
    world.visitor.read_to_end(&mut answers).await.unwrap();
    assert_eq!(answers, [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &refusal.page()].concat());
}
