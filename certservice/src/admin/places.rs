//! Places for what takes long or many resources: so many at once, and of one tenant no more than its share, so that none can keep
//! the others out.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;

use super::problem::ApiError;

pub(super) struct Places {
    /// For the one who is refused: `lists arrive`.
    what: &'static str,
    most: usize,
    of_tenant_most: usize,
    busy_seconds: u64,
    taken: Mutex<BTreeMap<String, usize>>,
}

/// Given back when dropped.
pub(super) struct Place {
    places: &'static Places,
    tenant: String,
}

impl Places {
    pub(super) const fn new(what: &'static str, most: usize, of_tenant_most: usize, busy_seconds: u64) -> Self {
        Self { what, most, of_tenant_most, busy_seconds, taken: Mutex::new(BTreeMap::new()) }
    }

    /// For a tenant's own token, or for an operator, who may take all of them.
    pub(super) fn take(&'static self, tenant: Option<&str>) -> Result<Place, ApiError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = tenant.map_or(0, |tenant| taken.get(tenant).copied().unwrap_or(0));
        if own >= self.of_tenant_most {
            return Err(self.busy(&format!("{own} {} for this tenant already", self.what)));
        }
        let all: usize = taken.values().sum();
        if all >= self.most {
            return Err(self.busy(&format!("{all} {} already", self.what)));
        }
        let tenant = tenant.unwrap_or_default().to_owned();
        *taken.entry(tenant.clone()).or_default() += 1;
        Ok(Place { places: self, tenant })
    }

    fn busy(&self, says: &str) -> ApiError {
        let busy = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy", format!("{says}; try again"));
        busy.retry_after(self.busy_seconds)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.tenant) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&self.tenant)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static FEW: Places = Places::new("lists arrive", 4, 2, 10);

    #[test]
    fn a_tenant_takes_its_share_and_leaves_places_to_others() {
        let of = |tenant| FEW.take(tenant).ok();
        let first: Vec<_> = (0..5).filter_map(|_| of(Some("first"))).collect();
        assert_eq!(first.len(), 2);
        let operators: Vec<_> = (0..5).filter_map(|_| of(None)).collect();
        assert_eq!((operators.len(), of(Some("second")).is_none()), (2, true), "there are four");
        drop(first);
        assert!(of(Some("second")).is_some() && of(Some("first")).is_some());
        drop(operators);
        assert!(FEW.taken.lock().unwrap().is_empty());
    }
}
