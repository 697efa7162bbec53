use std::collections::HashMap;

use pingora::upstreams::peer::HttpPeer;

use super::super::peer::Held;
use super::*;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// One peer for each weight, on ports 1, 2, …
fn peers(balance: Balance, weights: &[u32]) -> Peers {
    let peer = |(index, weight): (usize, &u32)| {
        let address = address(u16::try_from(index + 1).unwrap());
        Arc::new(Peer::new(address, index, *weight, HttpPeer::new(address, false, String::new())))
    };
    Peers::new(weights.iter().enumerate().map(peer).collect(), balance)
}

fn take_out(peer: &Peer) {
    assert_eq!(peer.checked(false, 1, 1), Some(false));
}

fn let_rest(peer: &Peer) {
    while !peer.rests() {
        peer.request_failed();
    }
}

/// How many of the picks each port got.
fn spread(peers: &Peers, picks: usize) -> Vec<usize> {
    let mut counts = HashMap::new();
    for _ in 0..picks {
        let (peer, _) = peers.pick(CLIENT, &[]).unwrap();
        *counts.entry(peer.address).or_insert(0) += 1;
    }
    peers.list.iter().map(|peer| counts.get(&peer.address).copied().unwrap_or(0)).collect()
}

#[test]
fn turns_follow_the_weights() {
    assert_eq!(spread(&peers(Balance::RoundRobin, &[3, 1]), 400), [300, 100]);
    assert_eq!(spread(&peers(Balance::RoundRobin, &[1, 1, 2]), 400), [100, 100, 200]);
    assert_eq!(spread(&peers(Balance::RoundRobin, &[100]), 10), [10]);
}

#[test]
fn a_peer_that_is_out_or_rests_gets_nothing_while_another_is_left() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::HashClient] {
        let peers = peers(balance, &[5, 1, 1]);
        take_out(&peers.list[0]);
        let_rest(&peers.list[1]);
        assert_eq!(spread(&peers, 20), [0, 0, 20], "{balance:?}");
        let_rest(&peers.list[2]);
        let (peer, pick) = peers.pick(CLIENT, &[]).unwrap();
        assert_eq!((peer.is_up(), pick), (true, Pick::LastResort), "{balance:?}: rest never empties the list");
        take_out(&peers.list[1]);
        take_out(&peers.list[2]);
        assert!(peers.pick(CLIENT, &[]).is_none(), "{balance:?}");
        peers.list[0].checked(true, 1, 1);
        assert_eq!(spread(&peers, 5), [5, 0, 0], "{balance:?}");
    }
}

#[test]
fn a_further_try_goes_to_another_peer_while_there_is_one() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::HashClient] {
        let peers = peers(balance, &[1, 1, 1]);
        let mut tried = Vec::new();
        while peers.another(&tried) {
            let (peer, pick) = peers.pick(CLIENT, &tried).unwrap();
            assert_eq!((tried.contains(&peer.address), pick), (false, Pick::Healthy), "{balance:?}");
            tried.push(peer.address);
        }
        assert_eq!(tried.len(), 3, "{balance:?}");
        assert_eq!(peers.pick(CLIENT, &tried).unwrap().1, Pick::LastResort, "{balance:?}");
    }
}

#[test]
fn the_least_busy_peer_for_its_weight_is_taken() {
    let peers = peers(Balance::LeastConnections, &[3, 1]);
    let held: Vec<_> = (0..40).map(|_| Held::new(peers.pick(CLIENT, &[]).unwrap().0)).collect();
    assert_eq!((peers.list[0].open(), peers.list[1].open()), (30, 10));
    drop(held);
    let busy = Held::new(peers.list[0].clone());
    let more: Vec<_> = (0..3).map(|_| Held::new(peers.list[0].clone())).collect();
    assert_eq!(peers.pick(CLIENT, &[]).unwrap().0.address, address(2));
    drop((busy, more));
}

#[test]
fn idle_peers_share_where_connections_are_counted() {
    assert_eq!(spread(&peers(Balance::LeastConnections, &[1, 1]), 100), [50, 50]);
}

#[test]
fn a_client_stays_with_its_peer_and_only_those_of_a_lost_peer_move() {
    let peers = peers(Balance::HashClient, &[1, 1, 1]);
    let client = |n: u8| IpAddr::from([192, 0, 2, n]);
    let of = |n: u8| peers.pick(client(n), &[]).unwrap().0.address;
    let before: Vec<_> = (0..=255).map(of).collect();
    assert_eq!(before, (0..=255).map(of).collect::<Vec<_>>());
    for peer in &peers.list {
        let share = before.iter().filter(|address| **address == peer.address).count();
        assert!((40..=130).contains(&share), "{share} of 256 clients");
    }
    take_out(&peers.list[0]);
    for (n, address) in (0..=255).zip(before) {
        assert_eq!(of(n) == address, address != peers.list[0].address, "client {n}");
    }
}

#[test]
fn an_ipv6_network_is_one_client() {
    let key = |text: &str| key(text.parse().unwrap());
    assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::1"));
    assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
    assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
}
