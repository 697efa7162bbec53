use std::sync::LazyLock;

use contract::sealed::{Recipient, seal_ticket_key};
use contract::tickets::TicketKey as SealedKey;

use super::*;

static EDGE: LazyLock<EdgeKey> = LazyLock::new(|| EdgeKey::generate(2048).unwrap());
static OTHER: LazyLock<EdgeKey> = LazyLock::new(|| EdgeKey::generate(2048).unwrap());

const HOUR: u64 = 3600;
const START: u64 = 1_800_000_000;

fn key(number: u8) -> Arc<TicketKey> {
    let from = START + u64::from(number) * 12 * HOUR;
    Arc::new(TicketKey::new(KeyName([number; 16]), &[number; 32], from, from + 36 * HOUR).unwrap())
}

fn shared(numbers: impl IntoIterator<Item = u8>) -> Tickets {
    let tickets = Tickets::new(START).unwrap();
    tickets.share(7, 24 * 3600, numbers.into_iter().map(key).collect());
    tickets
}

fn encrypts(tickets: &Tickets, now: u64) -> [u8; 16] {
    tickets.encrypting(now).unwrap().name.0
}

#[test]
fn the_newest_key_whose_time_has_come_encrypts() {
    let tickets = shared([1, 3, 2]);
    let at = |hour: u64| encrypts(&tickets, START + hour * HOUR);
    assert_eq!((at(12), at(23), at(24), at(36), at(60)), ([1; 16], [1; 16], [2; 16], [3; 16], [3; 16]));
}

#[test]
fn a_key_is_accepted_from_before_its_time_until_it_ends() {
    let tickets = shared([1, 2]);
    let found = |number: u8, hour: u64| tickets.find(&KeyName([number; 16]), START + hour * HOUR);
    assert!(matches!(found(1, 12), Found::Current(_)));
    // Of an edge whose clock is ahead.
    assert!(matches!(found(2, 23), Found::Older(_)));
    assert!(matches!((found(2, 24), found(1, 24)), (Found::Current(_), Found::Older(_))));
    assert!(matches!(found(1, 47), Found::Older(_)));
    assert!(matches!(found(1, 48), Found::Expired));
    assert!(matches!(found(9, 12), Found::Unknown));
}

#[test]
fn own_keys_stand_in_before_the_first_shared_one_and_after_the_last() {
    let tickets = Tickets::new(START).unwrap();
    let own = encrypts(&tickets, START);
    assert_eq!(tickets.lifetime_seconds(), 24 * 3600);
    tickets.share(7, 600, vec![key(1)]);
    assert_eq!((tickets.revision(), tickets.lifetime_seconds()), (7, 600));
    assert_eq!(encrypts(&tickets, START), own);
    assert_eq!(encrypts(&tickets, START + 12 * HOUR), [1; 16]);
    assert!(matches!(tickets.find(&KeyName(own), START + 12 * HOUR), Found::Older(_)));
    assert_eq!(encrypts(&tickets, START + 48 * HOUR), own);
}

#[test]
fn own_keys_are_replaced_and_their_number_is_bounded() {
    let tickets = Tickets::new(START).unwrap();
    let first = encrypts(&tickets, START);
    tickets.renew_local(START + 11 * HOUR).unwrap();
    assert_eq!(encrypts(&tickets, START), first);
    tickets.renew_local(START + 12 * HOUR).unwrap();
    assert_ne!(encrypts(&tickets, START), first);
    assert!(matches!(tickets.find(&KeyName(first), START + 12 * HOUR), Found::Older(_)));
    (2..100).for_each(|turn| tickets.renew_local(START + turn * 12 * HOUR).unwrap());
    assert!(matches!(tickets.find(&KeyName(first), START), Found::Unknown));
    assert!(tickets.ring.load().local.len() <= LOCAL_KEYS_MAX);
    // A clock that was far ahead and is put right.
    tickets.renew_local(START).unwrap();
    assert_eq!(tickets.encrypting(START).unwrap().encrypts_from, START);
}

#[test]
fn protection_depends_on_key_and_purpose() {
    let protection = |number: u8, purpose: &[u8]| key(number).protection(purpose).unwrap().0.to_vec();
    let one = protection(1, b"a.example 1");
    assert_eq!(one, protection(1, b"a.example 1"));
    for other in [protection(2, b"a.example 1"), protection(1, b"b.example 1"), protection(1, b"a.example 2")] {
        assert_ne!(one, other);
    }
    assert_ne!(one[..32], one[32..]);
}

#[test]
fn debug_shows_no_secret() {
    assert_eq!(format!("{:?}", key(0)), "TicketKey { encrypts_from: 1800000000, .. }");
}

fn sealed(number: u8, to: &EdgeKey) -> SealedKey {
    let recipient = Recipient::from_pem(&to.public_pem().unwrap()).unwrap();
    let (name, like) = (KeyName([number; 16]), key(number));
    let secret = seal_ticket_key(&[number; 32], &name, &[recipient]).unwrap();
    SealedKey { name, encrypts_from: like.encrypts_from, accepts_until: like.accepts_until, secret }
}

fn document(revision: u64, keys: Vec<SealedKey>) -> TicketKeys {
    TicketKeys { revision, lifetime_seconds: 600, keys }
}

#[test]
fn newer_keys_are_put_in_force_and_older_ones_refused() {
    let tickets = Tickets::new(START).unwrap();
    let (first, second) = (sealed(1, &EDGE), sealed(2, &EDGE));
    assert!(tickets.turn(&document(5, vec![first.clone()]), &EDGE).unwrap());
    assert!(!tickets.turn(&document(5, vec![first.clone()]), &EDGE).unwrap());
    assert_eq!((tickets.revision(), tickets.lifetime_seconds()), (5, 600));
    assert!(tickets.turn(&document(6, vec![first.clone(), second]), &EDGE).unwrap());
    assert_eq!(encrypts(&tickets, START + 24 * HOUR), [2; 16]);
    let older = tickets.turn(&document(5, vec![first]), &EDGE).unwrap_err();
    assert_eq!((older.reason(), tickets.revision()), ("rolled_back", 6));
}

#[test]
fn keys_for_other_edges_are_left_out() {
    let tickets = Tickets::new(START).unwrap();
    assert!(tickets.turn(&document(1, vec![sealed(1, &OTHER), sealed(2, &EDGE)]), &EDGE).unwrap());
    assert!(matches!(tickets.find(&KeyName([1; 16]), START), Found::Unknown));
    assert!(matches!(tickets.find(&KeyName([2; 16]), START), Found::Older(_)));
    assert_eq!((tickets.shared_keys(START), tickets.next_from(START)), (1, Some(START + 24 * HOUR)));
    assert_eq!(tickets.next_from(START + 24 * HOUR), None);
}

#[test]
fn what_is_malformed_changes_nothing() {
    let tickets = Tickets::new(START).unwrap();
    tickets.turn(&document(1, vec![sealed(1, &EDGE)]), &EDGE).unwrap();
    let renamed = SealedKey { name: KeyName([9; 16]), ..sealed(2, &EDGE) };
    for (keys, reason) in [(vec![], "malformed"), (vec![renamed], "key_does_not_open")] {
        assert_eq!(tickets.turn(&document(2, keys), &EDGE).unwrap_err().reason(), reason);
        assert_eq!((tickets.revision(), encrypts(&tickets, START + 12 * HOUR)), (1, [1; 16]));
    }
}
