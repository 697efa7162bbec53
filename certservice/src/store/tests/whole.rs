//! Who leaves before the answer is there.

use std::time::Duration;

use super::*;

/// More than connections.
const LEAVE: u64 = 400;

/// For each in turn a little later, so that every state of a question is left.
async fn leaves<T>(turn: u64, question: impl Future<Output = T>) {
    let patience = Duration::from_micros(turn * 7 % 1500);
    let _ = tokio::time::timeout(patience, question).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_before_the_answer_takes_no_connection_along_and_leaves_no_answer_to_the_next() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        for number in 0..20 {
            let domain = format!("shop{number}.example");
            store.register("tenant", &job(&domain), 100, OURSELVES).await.unwrap();
        }
        let names: Vec<Hostname> = (0..20).map(|number| name(&format!("shop{number}.example"))).collect();
        for turn in 0..LEAVE {
            let asked = &names[turn as usize % names.len()];
            leaves(turn, store.domain(asked)).await;
            leaves(turn * 3, store.off_board(&name("nobody.example"), "tenant", OURSELVES)).await;
            leaves(turn * 5, store.enqueue(&job("nobody.example"), 0)).await;
            let next = &names[(turn as usize + 7) % names.len()];
            assert_eq!(&store.domain(next).await.unwrap().unwrap().name, next, "after {turn} have left");
        }
        tokio::time::timeout(Duration::from_secs(30), store.close()).await.expect("no connection is waited for");
    }
}
