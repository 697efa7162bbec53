//! The report: a pure function of the keys and of how many bundles are sealed to which set of them.

use contract::api::{Custody, KeyCustody, KeyState, PoolCustody};

use super::KeySet;

/// `keys`: key ID, pool, state.
pub(super) fn report(keys: &[(&str, &str, KeyState)], counted: &[(KeySet, u64)], uncounted: u64) -> Custody {
    let count = |wanted: &dyn Fn(&KeySet) -> bool| -> u64 {
        counted.iter().filter(|(set, _)| wanted(set)).map(|(_, count)| count).sum()
    };
    let active = || keys.iter().filter(|(.., state)| *state == KeyState::Active);
    // Of the active keys that are let pass, none is known to open it.
    let locked = |set: &KeySet, pass: &dyn Fn(&str, &str) -> bool| {
        !active().any(|(kid, pool, _)| pass(kid, pool) && set.opens(kid))
    };
    let of_key = |kid: &str, pool: &str, state: KeyState| KeyCustody {
        kid: kid.to_owned(),
        pool: pool.to_owned(),
        state,
        sealed: count(&|set| set.opens(kid)),
        unconfirmed: count(&|set| set.has(kid) && !set.opens(kid)),
        missing: count(&|set| !set.has(kid)),
        alone: match state {
            KeyState::Active => count(&|set| set.opens(kid) && locked(set, &|other, _| other != kid)),
            _ => 0,
        },
    };
    let mut of_keys: Vec<_> = keys.iter().map(|(kid, pool, state)| of_key(kid, pool, *state)).collect();
    // Of a time before keys were kept in the database.
    let mut strangers: Vec<_> = counted.iter().flat_map(|(set, _)| set.kids()).collect();
    strangers.retain(|kid| keys.iter().all(|(known, ..)| known != kid));
    strangers.sort_unstable();
    strangers.dedup();
    of_keys.extend(strangers.into_iter().map(|kid| of_key(kid, "", KeyState::Retired)));

    let mut pools: Vec<_> = active().map(|(_, pool, _)| *pool).collect();
    pools.sort_unstable();
    pools.dedup();
    let of_pool = |pool: &str| PoolCustody {
        pool: pool.to_owned(),
        active_keys: active().filter(|(_, of, _)| *of == pool).count() as u64,
        complete: count(&|set| active().filter(|(_, of, _)| *of == pool).all(|(kid, ..)| set.opens(kid))),
        missing: count(&|set| locked(set, &|_, of| of == pool)),
        alone: count(&|set| !locked(set, &|_, of| of == pool) && locked(set, &|_, of| of != pool)),
    };
    Custody {
        bundles: count(&|_| true) + uncounted,
        uncounted,
        unreadable: count(&|set| locked(set, &|_, _| true)),
        keys: of_keys,
        pools: pools.into_iter().map(of_pool).collect(),
    }
}
