use super::*;

const NOW: u64 = 1_800_000_000;

fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

#[test]
fn renews_with_a_third_left_and_half_for_the_short_lived() {
    for days in [90, 45, 10, 6, 1] {
        let (from, to) = (NOW, NOW + days * DAY);
        let left = to - renew_at(&name("shop.example"), from, to);
        let least = if days < 10 { days * DAY / 2 } else { days * DAY / 3 };
        assert!((least..=least + least / 10).contains(&left), "{days} days: {left} s left");
        let urgent = to - urgent_at(from, to);
        assert!(urgent * 2 <= left && urgent > 0, "{days} days: urgent with {urgent} s left");
    }
}

#[test]
fn names_spread_and_a_name_stays() {
    let at = |n: u32| renew_at(&name(&format!("n{n}.example")), 0, 90 * DAY);
    let mut times: Vec<_> = (0..1000).map(at).collect();
    assert_eq!(times, (0..1000).map(at).collect::<Vec<_>>());
    times.sort_unstable();
    assert!(times[999] - times[0] > 2 * DAY);
    let most_in_an_hour = times.iter().map(|t| times.iter().filter(|o| (*t..t + 3600).contains(o)).count()).max();
    assert!(most_in_an_hour < Some(50), "{most_in_an_hour:?}");
}

#[test]
fn odd_validities_do_no_harm() {
    let name = name("shop.example");
    assert_eq!(renew_at(&name, 100, 100), 100);
    assert_eq!(renew_at(&name, 200, 100), 200);
    assert_eq!((urgent_at(200, 100), urgent_at(0, u64::MAX) > 0), (100, true));
}

#[test]
fn the_instant_in_a_window_stays_and_a_window_that_is_over_means_now() {
    let name = name("shop.example");
    let window = Window { start: NOW + 10 * DAY, end: NOW + 12 * DAY };
    let chosen = within(&name, None, window, NOW).unwrap();
    assert!((window.start..window.end).contains(&chosen));
    assert_eq!(within(&name, Some(chosen), window, NOW + DAY), Some(chosen));
    // A window that moved away from it: another instant, in it.
    let moved = Window { start: NOW + 20 * DAY, end: NOW + 22 * DAY };
    assert!((moved.start..moved.end).contains(&within(&name, Some(chosen), moved, NOW).unwrap()));
    // Revoked: the CA says that it should have been before.
    let over = Window { start: NOW - 2 * DAY, end: NOW - DAY };
    assert_eq!(within(&name, Some(chosen), over, NOW), Some(NOW));
    for odd in [Window { start: NOW + DAY, end: NOW + DAY }, Window { start: NOW - DAY, end: NOW - 2 * DAY }] {
        assert_eq!(within(&name, None, odd, NOW), None, "it is no window");
    }
    let begun = Window { start: NOW - DAY, end: NOW + 1 };
    assert!((NOW..=NOW + 1).contains(&within(&name, None, begun, NOW).unwrap()));
}

#[test]
fn what_has_replaced_a_certificate_is_not_replaced_at_once_again() {
    assert_eq!((rests_until(1, NOW), rests_until(2, NOW)), (0, NOW + DAY / 4));
}

#[test]
fn a_full_day_sends_renewals_to_the_last_one_with_room() {
    let today = NOW / DAY;
    let latest = (today + 30) * DAY + 77;
    let load = |days: &[(u64, u64)]| {
        Load::new(days.iter().map(|(day, count)| Planned { day: *day, lifetime_seconds: 45 * DAY, count: *count }))
    };
    assert_eq!(Load::default().even(NOW, latest), latest);
    assert_eq!(load(&[(today + 30, EVEN_MIN - 1)]).even(NOW, latest), latest);
    assert_eq!(load(&[(today + 30, EVEN_MIN)]).even(NOW, latest), latest - DAY);
    let full = load(&[(today + 30, 10_000), (today + 29, 10_000), (today + 28, 10)]);
    assert_eq!(full.even(NOW, latest), latest - 2 * DAY);
    let all_full: Vec<_> = (0..31).map(|day| (today + day, if day == 12 { 9_000 } else { 10_000 })).collect();
    assert_eq!(load(&all_full).even(NOW, latest), latest);
    let but_one: Vec<_> =
        (0..31).map(|day| (today + day, if day == 12 { 9_000 } else { 10_000 + 200 * day })).collect();
    assert!(load(&but_one).even(NOW, latest) < latest);
    // What is to be renewed tomorrow stays there.
    assert_eq!(load(&but_one).even(NOW, NOW + DAY), NOW + DAY);
}

#[test]
fn what_was_held_up_is_caught_up_with_over_days() {
    let today = NOW / DAY;
    let fleet = |first: u64| {
        (0..30).map(move |day| Planned { day: today + day - first, lifetime_seconds: 45 * DAY, count: 10_000 })
    };
    let steady = Load::new(fleet(0));
    assert_eq!(steady.allowance(NOW - DAY, NOW), 11_666);
    assert_eq!(Load::new(fleet(3)).allowance(NOW - DAY, NOW), 11_666);
    // Nothing is lost to rounding, however often one looks.
    assert_eq!((0..1440).map(|n| steady.allowance(NOW + n * 60, NOW + n * 60 + 60)).sum::<u64>(), 11_666);
    // A small fleet does not wait.
    assert_eq!(Load::default().allowance(NOW - 60, NOW), 1);
}

#[test]
fn an_outage_is_caught_up_with_in_a_time_that_is_known_before() {
    let today = NOW / DAY;
    let fleet = Load::new((0..30).map(|day| Planned { day: today + day, lifetime_seconds: 45 * DAY, count: 10_000 }));
    assert_eq!((fleet.per_day(), fleet.pace()), (10_000, 11_666));
    assert_eq!((fleet.before(today), fleet.before(today + 3)), (0, 30_000));
    // 30,000 and 10,000 each day, at 11,666: 30,000 / 1,666.
    assert_eq!(fleet.catch_up_days(today + 3), 19);
    assert_eq!(fleet.catch_up_days(today), 0);
    assert_eq!(Load::default().catch_up_days(today + 3), 0);
}

/// One name of the simulated year.
#[derive(Clone, Copy)]
struct Simulated {
    not_after: u64,
    renew_at: u64,
    urgent_at: u64,
}

/// What a year was like.
struct Year {
    expired: usize,
    /// Orders of each day.
    orders: Vec<u64>,
}

impl Year {
    /// Over the days that are left when those of an incident are not counted.
    fn peak_to_mean(&self, without: std::ops::Range<usize>) -> f64 {
        let days = || self.orders.iter().enumerate().filter(|(day, _)| !without.contains(day)).map(|(_, n)| *n as f64);
        days().fold(0.0, f64::max) * days().count() as f64 / days().sum::<f64>()
    }
}

/// On days of the year.
#[derive(Default)]
struct Events {
    /// The CA is down.
    outage: std::ops::Range<u64>,
    /// The CA revokes everything, and wants it replaced within so many days.
    revoked: Option<(u64, u64)>,
}

const LIFETIME: u64 = 45 * DAY;

struct Simulation {
    names: Vec<Hostname>,
    fleet: Vec<Simulated>,
    load: Load,
    /// By hour of the year.
    due: Vec<Vec<usize>>,
    waiting: std::collections::VecDeque<usize>,
    year: Year,
}

impl Simulation {
    /// A fleet that has grown over one period.
    fn new(count: usize) -> Self {
        let names: Vec<Hostname> = (0..count).map(|n| name(&format!("n{n}.example"))).collect();
        let period = LIFETIME - left(LIFETIME);
        let planned = |n: usize| NOW + period * n as u64 / count as u64;
        let one = |n| Simulated {
            not_after: planned(n) + left(LIFETIME),
            renew_at: planned(n),
            urgent_at: planned(n) + left(LIFETIME) / 2,
        };
        let load = (0..count).map(|n| Planned { day: planned(n) / DAY, lifetime_seconds: LIFETIME, count: 1 });
        let mut simulation = Self {
            fleet: (0..count).map(one).collect(),
            load: Load::new(load),
            due: vec![Vec::new(); 365 * 24],
            waiting: Default::default(),
            year: Year { expired: 0, orders: vec![0; 365] },
            names,
        };
        (0..count).for_each(|n| simulation.plan(n));
        simulation
    }

    fn plan(&mut self, n: usize) {
        let hour = (self.fleet[n].renew_at.saturating_sub(NOW)).div_ceil(3600) as usize;
        if let Some(due) = self.due.get_mut(hour) {
            due.push(n);
        }
    }

    /// As the service does with a certificate that has just come.
    fn renew(&mut self, n: usize, now: u64) {
        let Simulated { not_after, renew_at: was, .. } = self.fleet[n];
        self.year.expired += usize::from(not_after <= now);
        self.year.orders[((now - NOW) / DAY) as usize] += 1;
        self.load.remove(was);
        let not_after = now + LIFETIME;
        let at = self.load.even(now, renew_at(&self.names[n], now, not_after));
        self.load.add(at);
        self.fleet[n] = Simulated { not_after, renew_at: at, urgent_at: urgent_at(now, not_after) };
        self.plan(n);
    }

    /// Each hour, those that can wait within the allowance, and all that are urgent.
    fn run(mut self, events: &Events) -> Year {
        let mut replacing = std::collections::VecDeque::new();
        for hour in 0..365 * 24 {
            let now = NOW + hour * 3600;
            if let Some((day, _)) = events.revoked
                && hour == day * 24
            {
                replacing.extend(0..self.names.len());
                self.waiting.clear();
                self.due.iter_mut().for_each(Vec::clear);
            }
            self.waiting.append(&mut std::mem::take(&mut self.due[hour as usize]).into());
            if events.outage.contains(&(hour / 24)) {
                continue;
            }
            let hours = events.revoked.map_or(1, |(_, days)| days as usize * 24);
            for _ in 0..self.names.len().div_ceil(hours).min(replacing.len()) {
                replacing.pop_front().into_iter().for_each(|n| self.renew(n, now));
            }
            let mut left = self.load.allowance(now - 3600, now);
            while let Some(n) = self.waiting.front().copied()
                && (left > 0 || self.fleet[n].urgent_at <= now)
            {
                self.waiting.pop_front();
                left = left.saturating_sub(1);
                self.renew(n, now);
            }
        }
        self.year.expired += self.fleet.iter().filter(|name| name.not_after <= NOW + 365 * DAY).count();
        self.year
    }
}

/// `LATCHKEY_SIMULATED_NAMES=1000000` in an optimised build is the run that bench/README.md tells of.
fn names() -> usize {
    std::env::var("LATCHKEY_SIMULATED_NAMES").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000)
}

fn tell(what: &str, year: &Year, ratio: f64) {
    let (least, most) = (year.orders.iter().min().unwrap(), year.orders.iter().max().unwrap());
    println!(
        "{what}: {} orders, {least} to {most} a day, peak/mean {ratio:.3}, {} expired",
        year.orders.iter().sum::<u64>(),
        year.expired
    );
}

#[test]
fn a_quiet_year_is_flat() {
    let year = Simulation::new(names()).run(&Events::default());
    let ratio = year.peak_to_mean(0..0);
    tell("quiet", &year, ratio);
    assert_eq!(year.expired, 0);
    assert!(ratio <= 1.2, "{ratio}");
}

#[test]
fn an_outage_of_three_days_is_caught_up_with_in_good_time() {
    let year = Simulation::new(names()).run(&Events { outage: 100..103, ..Events::default() });
    let ratio = year.peak_to_mean(0..0);
    tell("outage", &year, ratio);
    assert_eq!((year.expired, year.orders[101]), (0, 0));
    assert!(ratio <= 1.2, "{ratio}");
}

/// Whoever must replace all in a day or in five has a peak: 1 / 1.2 of it would take 25 days. What can be flat, and must be,
/// is every other day of the year.
#[test]
fn a_year_with_an_outage_and_everything_revoked_is_flat_but_for_the_days_of_replacing() {
    for days in [1, 5] {
        let year = Simulation::new(names()).run(&Events { outage: 60..63, revoked: Some((180, days)) });
        let ratio = year.peak_to_mean(180..180 + days as usize);
        tell("outage and revocation", &year, ratio);
        assert_eq!(year.expired, 0);
        let replaced: u64 = year.orders[180..180 + days as usize].iter().sum();
        assert!(replaced as usize >= names(), "all were replaced within {days} days: {replaced}");
        assert!(ratio <= 1.2, "{ratio}");
    }
}
