//! When certificates are renewed, as the store remembers it.

use super::*;
use crate::renew::Window;

async fn issue(store: &Store, domain: &str, next: &Next) {
    store.register("shop", &job(domain), 0, "test").await.unwrap();
    let stored = only_job(store).await;
    let done = issued(&stored.job);
    store.finish(&stored, &done, &bundle(domain, 1), &shown(1), next).await.unwrap();
}

#[tokio::test]
async fn a_window_is_asked_for_by_one_and_kept_for_its_certificate_only() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        issue(&store, "a.example", &soon(NOW + 1000)).await;
        issue(&store, "silent.example", &Next { ari_id: None, ask_at: None, ..soon(NOW + 1000) }).await;
        assert!(store.windows_due(NOW + 949, FAR, 10).await.unwrap().is_empty());
        let mut due = store.windows_due(NOW + 950, FAR, 10).await.unwrap();
        assert!(store.windows_due(NOW + 950, FAR, 10).await.unwrap().is_empty());
        let mut suggested = due.remove(0);
        assert_eq!((suggested.name.as_str(), suggested.renew_at), ("a.example", Some(NOW + 1000)));
        suggested.renew_at = Some(NOW + 500);
        suggested.window = Some(Window { start: NOW + 400, end: NOW + 600 });
        store.save_window(&suggested, NOW + 7000, NOW).await.unwrap();
        let window = async || store.replacement(&name("a.example")).await.unwrap().window;
        assert_eq!(window().await, suggested.window);
        // A CA that does not answer once has taken nothing back.
        suggested.window = None;
        store.save_window(&suggested, NOW + 7000, NOW).await.unwrap();
        assert_eq!(window().await, Some(Window { start: NOW + 400, end: NOW + 600 }));
        assert_eq!(store.renewals("ca", NOW + 500, 10).await.unwrap().len(), 1);
        assert!(store.urgent_renewals(NOW + 500, 10).await.unwrap().is_empty());
        // What was learnt of another certificate says nothing of this one.
        let other = crate::store::Suggested { ari_id: "key.before".into(), urgent: true, ..suggested.clone() };
        store.save_window(&other, NOW, NOW).await.unwrap();
        assert!(store.windows_due(NOW + 6999, FAR, 10).await.unwrap().is_empty());
        assert!(store.urgent_renewals(NOW, 10).await.unwrap().is_empty());
        let urgent = crate::store::Suggested { urgent: true, ..suggested };
        store.save_window(&urgent, NOW + 7000, NOW).await.unwrap();
        let renewal = store.urgent_renewals(NOW, 10).await.unwrap().remove(0);
        assert_eq!((renewal.ari_id.as_deref(), renewal.not_after), (Some("key.serial"), NOW + 1000));
        assert_eq!(store.renewal(&name("a.example")).await.unwrap(), Some(renewal));
        assert_eq!(store.renewal(&name("none.example")).await.unwrap(), None);
        // It was of that certificate, and says nothing of the next.
        assert!(renewed(&store, "a.example").await);
        let next = only_job(&store).await;
        let served = (bundle("a.example", 2), shown(2));
        store.finish(&next, &issued(&next.job), &served.0, &served.1, &soon(NOW + 9000)).await.unwrap();
        assert_eq!(window().await, None);
    }
}

#[tokio::test]
async fn renewals_are_counted_by_day() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let day = NOW / 86_400;
        for (domain, at) in [("a.example", day), ("b.example", day + 2), ("c.example", day + 2)] {
            issue(&store, domain, &soon(at * 86_400 + 77)).await;
        }
        let by_day = store.renewals_by_day().await.unwrap();
        let mut by_day: Vec<_> =
            by_day.into_iter().map(|(issuer, p)| (issuer, p.day, p.lifetime_seconds, p.count)).collect();
        by_day.sort_unstable();
        assert_eq!(by_day, [("ca".to_owned(), day, 0, 1), ("ca".to_owned(), day + 2, 0, 2)]);
        assert_eq!(store.renewals("other", FAR, 10).await.unwrap(), []);
        let job = Job { step: Step::InLine { checked_at: NOW }, lane: Lane::Renewal, ..job("a.example") };
        assert!(store.enqueue(&job, 1).await.unwrap());
        assert_eq!(store.renewals_in_line("ca").await.unwrap(), 1);
        assert_eq!(store.renewals_in_line("other").await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_turn_is_one_instances_and_tells_when_it_was_last() {
    for fresh in fresh().await {
        let (store, other) = (Store::open(&fresh.url).await.unwrap(), Store::open(&fresh.url).await.unwrap());
        let take = async |store: &Store, now| store.take_turn("renewals", now, 30).await.unwrap();
        assert_eq!((take(&store, NOW).await, take(&other, NOW + 29).await), (Some(NOW), None));
        assert_eq!((take(&other, NOW + 40).await, take(&store, NOW + 60).await), (Some(NOW), None));
        // After a clock that was wrong, nobody waits for its time.
        assert_eq!((take(&store, NOW + 9000).await, take(&other, NOW + 70).await), (Some(NOW + 40), Some(NOW + 70)));
        let takes = (0..8).map(|n| {
            let store = if n % 2 == 0 { store.clone() } else { other.clone() };
            tokio::spawn(async move { store.take_turn("renewals", NOW + 200, 30).await.unwrap() })
        });
        let mut taken = 0;
        for take in takes.collect::<Vec<_>>() {
            taken += usize::from(take.await.unwrap().is_some());
        }
        assert_eq!(taken, 1);
    }
}

#[tokio::test]
async fn while_a_ca_is_down_renewals_stay_where_they_are() {
    for fresh in fresh().await {
        let store = Store::open(&fresh.url).await.unwrap();
        let create = async || {
            let planner = crate::renew::Planner::default();
            crate::renew::create_orders(&store, &planner, NOW - 86_400, NOW).await.unwrap()
        };
        // An hour's worth of a small fleet.
        for n in 0..60 {
            let step = Step::InLine { checked_at: NOW };
            store
                .register("shop", &Job { step, lane: Lane::Renewal, ..job(&format!("n{n}.example")) }, 0, "test")
                .await
                .unwrap();
        }
        for n in [60, 61] {
            let domain = format!("n{n}.example");
            store.register("shop", &job(&domain), 0, "test").await.unwrap();
            let stored = due(&store, FAR, 100).await.into_iter().find(|s| s.job.domain.as_str() == domain).unwrap();
            let done = issued(&stored.job);
            let next = if n == 60 { soon(NOW) } else { Next { urgent_at: NOW, ..soon(NOW) } };
            store.finish(&stored, &done, &bundle(&domain, 1), &shown(1), &next).await.unwrap();
        }
        assert_eq!(create().await, 1, "what can't wait");
        assert_eq!(create().await, 0);
        store.off_board(&name("n0.example"), "shop", "test").await.unwrap();
        assert_eq!(create().await, 1, "some have left");
    }
}
