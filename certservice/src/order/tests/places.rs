use super::*;

fn waiting(lane: Lane, count: usize) -> impl Iterator<Item = Waiting> {
    (0..count).map(move |n| {
        let mut one = Waiting::default();
        (one.name, one.lane) = (format!("{}{n}.example", lane.as_str()), lane);
        one.tenant = one.name.clone();
        one
    })
}

fn of(tenant: &'static str, lane: Lane, count: usize) -> impl Iterator<Item = Waiting> {
    waiting(lane, count).map(move |mut one| {
        one.tenant = tenant.into();
        one
    })
}

/// All that wait, each lane in its turn.
fn crowd(counts: [usize; LANES]) -> Vec<Waiting> {
    Lane::ALL.into_iter().zip(counts).flat_map(|(lane, count)| waiting(lane, count)).collect()
}

/// How many of each lane have a place after this.
fn started(places: &mut Places, work: Work, counts: [usize; LANES]) -> [usize; LANES] {
    let mut has = [0; LANES];
    for one in places.next(work, crowd(counts)) {
        has[one.lane as usize] += 1;
        places.take(&one, work);
    }
    has
}

#[test]
fn no_lane_has_all_places_while_another_waits() {
    let started = |counts| started(&mut Places::new(8), Work::Order, counts);
    assert_eq!(started([99, 99, 99, 99]), [4, 2, 1, 1]);
    assert_eq!(started([99, 99, 0, 0]), [6, 2, 0, 0]);
    assert_eq!(started([0, 0, 0, 99]), [0, 0, 0, 8]);
    assert_eq!(started([1, 99, 99, 0]), [1, 6, 1, 0]);
    assert_eq!(started([0, 3, 0, 1]), [0, 3, 0, 1]);
}

#[test]
fn places_that_become_free_one_by_one_are_kept_for_whom_they_are() {
    let mut places = Places::new(8);
    assert_eq!(started(&mut places, Work::Order, [99, 0, 0, 0]), [8, 0, 0, 0]);
    for expected in [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [1, 0, 0, 0]] {
        let visitor = places.names().into_iter().find(|name| name.starts_with("visitor")).unwrap();
        places.leave(&visitor);
        // Others than those that have a place.
        let fresh = crowd([99, 99, 99, 99]).into_iter().filter(|one| !places.names().contains(&one.name));
        let next = places.next(Work::Order, fresh.collect());
        assert_eq!(next.len(), 1);
        next.iter().for_each(|one| places.take(one, Work::Order));
        let mut has = [0; LANES];
        has[next[0].lane as usize] += 1;
        assert_eq!(has, expected);
    }
}

#[test]
fn with_fewer_places_than_lanes_they_take_turns() {
    let mut places = Places::new(1);
    let mut turns = Vec::new();
    for _ in 0..8 {
        let next = places.next(Work::Order, crowd([99, 99, 99, 99]));
        turns.extend(next.iter().map(|one| one.lane));
    }
    assert_eq!(turns, [Lane::ALL, Lane::ALL].concat());
    let alone: Vec<_> = (0..3).flat_map(|_| places.next(Work::Order, crowd([0, 0, 9, 0]))).collect();
    assert!(alone.len() == 3 && alone.iter().all(|one| one.lane == Lane::New));
}

#[test]
fn looks_do_not_take_the_place_of_orders_nor_orders_that_of_looks() {
    let mut places = Places::new(8);
    assert_eq!(started(&mut places, Work::Look, [99, 99, 99, 99]), [32, 16, 8, 8]);
    assert_eq!((places.free(Work::Look), places.free(Work::Order)), (0, 8));
    assert_eq!(started(&mut places, Work::Look, [99, 99, 99, 99]), [0; LANES]);
}

#[test]
fn no_tenant_has_more_than_half_of_the_looks() {
    let mut places = Places::new(1);
    let crowd: Vec<_> = of("many", Lane::Visitor, 99).chain(of("few", Lane::Bulk, 2)).collect();
    let next = places.next(Work::Look, crowd.clone());
    assert_eq!(next.iter().filter(|one| one.tenant == "many").count(), 4);
    assert_eq!(next.iter().filter(|one| one.tenant == "few").count(), 2);
    assert!(!places.are_crowded(Work::Look));
    next.iter().for_each(|one| places.take(one, Work::Look));
    assert!(places.are_crowded(Work::Look) && places.free(Work::Look) == 2);
    assert_eq!(places.next(Work::Look, of("many", Lane::Renewal, 9).collect()).len(), 0);
    assert_eq!(places.next(Work::Look, of("other", Lane::Renewal, 9).collect()).len(), 2);
    // Orders last for as long as the CA lets them.
    assert_eq!(places.next(Work::Order, crowd).len(), 1);
}

#[test]
fn a_tenant_with_half_of_the_orders_has_more_only_where_nobody_else_of_the_lane_waits() {
    let next = |crowd: Vec<Waiting>| Places::new(8).next(Work::Order, crowd);
    let count = |next: &[Waiting], tenant: &str| next.iter().filter(|one| one.tenant == tenant).count();
    let mut few: Vec<_> = of("few", Lane::New, 3).collect();
    few.iter_mut().for_each(|one| one.name = format!("few-{}", one.name));
    let both = next(of("many", Lane::New, 99).chain(few).collect());
    assert_eq!((count(&both, "many"), count(&both, "few")), (5, 3));
    assert_eq!(count(&next(of("many", Lane::New, 99).collect()), "many"), 8);
}

#[test]
fn a_look_goes_on_as_an_order_in_a_place_for_one_and_not_before_who_waits_for_that() {
    let mut places = Places::new(1);
    let looks: Vec<_> = waiting(Lane::New, 3).collect();
    looks.iter().for_each(|one| places.take(one, Work::Look));
    let [first, second, third] = [&looks[0].name, &looks[1].name, &looks[2].name];
    assert!(places.promote(first) && places.promote(first));
    assert_eq!((places.free(Work::Order), places.free(Work::Look)), (0, 6));
    assert!(!places.promote(second));
    // It stands in line now, and a place that becomes free is not for who comes after it.
    places.leave(first);
    assert!(!places.promote(third));
    places.line_is_served();
    assert!(places.promote(third));
    // All places were full when the line was served: it may be long.
    places.line_is_served();
    places.leave(third);
    assert!(!places.promote(second));
}
