use contract::TicketKeys;
use contract::tickets::{KeyName, TicketKey};

use super::*;

fn keys(revision: u64) -> TicketKeys {
    let secret = bundle("a.example", 1).key;
    let key = TicketKey { name: KeyName([7; 16]), encrypts_from: NOW, accepts_until: NOW + 60, secret };
    TicketKeys { revision, lifetime_seconds: 60, keys: vec![key] }
}

#[tokio::test]
async fn ticket_keys_are_replaced_by_who_knows_what_they_replace() {
    for fresh in together().await {
        let (one, other) = (Store::open(&fresh.url).await.unwrap(), Store::open(&fresh.url).await.unwrap());
        assert_eq!(one.ticket_keys().await.unwrap(), None);
        assert!(one.replace_ticket_keys(0, &keys(5)).await.unwrap());
        // The other one looked at the same moment.
        assert!(!other.replace_ticket_keys(0, &keys(6)).await.unwrap());
        assert_eq!(other.ticket_keys().await.unwrap(), Some(keys(5)));
        assert!(other.replace_ticket_keys(5, &keys(9)).await.unwrap());
        assert!(!one.replace_ticket_keys(5, &keys(10)).await.unwrap());
        assert_eq!(one.ticket_keys().await.unwrap(), Some(keys(9)));
        let told = one.journal(None, 0, 10).await.unwrap();
        let told: Vec<_> =
            told.iter().map(|entry| (entry.action.as_str(), entry.detail["revision"].as_u64())).collect();
        assert_eq!(told, [("ticket_keys.turned", Some(5)), ("ticket_keys.turned", Some(9))]);
    }
}
