use super::*;

fn later(top: &Top, windows: u32) -> Instant {
    top.began + WINDOW * windows
}

/// Counts into one thread's tables, at a time.
fn count(top: &Top, tables: &Arc<Mutex<Tables>>, at: Instant, name: &str, weight: u64) {
    tables.lock().unwrap().of(By::Bytes).add(top.window(at), name, weight);
}

fn names(ranking: &Ranking) -> Vec<(&str, u64)> {
    ranking.names.iter().map(|ranked| (ranked.name.as_str(), ranked.count)).collect()
}

#[test]
fn few_names_are_counted_exactly_and_over_all_threads() {
    let top = Top::new(Instant::now());
    let (one, other) = (top.join(), top.join());
    for (tables, name, weight) in [(&one, "a", 5), (&one, "b", 7), (&other, "a", 4), (&other, "c", 1)] {
        count(&top, tables, top.began, name, weight);
    }
    let ranking = top.ranking_at(By::Bytes, 2, top.began + Duration::from_secs(9));
    assert_eq!((names(&ranking), ranking.total, ranking.seconds), (vec![("a", 9), ("b", 7)], 17, 9));
    assert!(ranking.names.iter().all(|ranked| ranked.count == ranked.at_least));
    assert!(top.ranking_at(By::Requests, 9, top.began).names.is_empty());
}

#[test]
fn a_flood_of_names_neither_grows_nor_hides_the_heavy_ones() {
    let top = Top::new(Instant::now());
    let tables = top.join();
    for round in 0..100_000 {
        count(&top, &tables, top.began, &format!("random-{round}.example"), 1);
        if round % 50 == 0 {
            count(&top, &tables, top.began, "heavy.example", 1);
        }
    }
    let ranking = top.ranking_at(By::Bytes, 5, top.began);
    let heavy = ranking.names.iter().find(|ranked| ranked.name == "heavy.example").unwrap();
    assert!(heavy.at_least <= 2000 && heavy.count >= 2000, "{heavy:?}");
    assert_eq!(ranking.total, 102_000);
    let tables = tables.lock().unwrap();
    let table = &tables.0[By::Bytes as usize].now;
    assert_eq!((table.heap.len(), table.places.len()), (NAMES_MAX, NAMES_MAX));
    for (at, entry) in table.heap.iter().enumerate() {
        assert_eq!(table.places[&*entry.name], at);
        assert!(at == 0 || table.heap[(at - 1) / 2].count <= entry.count, "the least is in front");
    }
}

#[test]
fn what_is_past_is_forgotten_after_two_windows() {
    let top = Top::new(Instant::now());
    let tables = top.join();
    count(&top, &tables, top.began, "early", 3);
    count(&top, &tables, later(&top, 1), "late", 2);
    let ranking = top.ranking_at(By::Bytes, 9, later(&top, 1) + Duration::from_secs(10));
    assert_eq!((names(&ranking), ranking.seconds), (vec![("early", 3), ("late", 2)], WINDOW.as_secs() + 10));
    assert_eq!(names(&top.ranking_at(By::Bytes, 9, later(&top, 2))), [("late", 2)]);
    assert_eq!(names(&top.ranking_at(By::Bytes, 9, later(&top, 4))), []);
}

#[test]
fn unknown_names_are_counted_by_registered_domain() {
    for name in ["a.scanner-only-here.example.co.uk", "b.x.scanner-only-here.example.co.uk", "example.co.uk"] {
        TOP.unknown_sni(name);
    }
    let ranking = TOP.ranking(By::UnknownSni, NAMES_MAX);
    let counted = ranking.names.iter().find(|ranked| ranked.name == "example.co.uk").unwrap();
    assert_eq!(counted.count, 3);
}
