//! Intermediate certificates: a handful of issuers sign a million leaves, so each chain stands in memory once, parsed,
//! and all certificates that it completes share it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use contract::bundle::sha256;
use openssl::error::ErrorStack;
use openssl::x509::X509;

/// Chains that are shared; what is beyond is charged to the certificate that brought it. So issuers that give every
/// domain an intermediate of its own can't grow memory past what the table may take.
const SHARED_MAX: usize = 256;
/// The longest chain that is shared, in bytes of DER, leaf excluded: a few intermediates of the usual 1 to 2 KB.
const SHARED_BYTES_MAX: usize = 16 * 1024;

pub(super) struct Chain {
    pub(super) intermediates: Vec<X509>,
}

/// A chain, and what of its memory the certificate has to answer for.
pub(super) struct Shared {
    pub(super) chain: Arc<Chain>,
    pub(super) charged_bytes: usize,
}

/// Parsed, an intermediate takes about this many times its DER.
const PARSED_FACTOR: usize = 5;

#[derive(Default)]
pub(super) struct Chains {
    /// Locked by threads that open bundles, never by a handshake.
    shared: Mutex<HashMap<[u8; 32], Weak<Chain>>>,
}

impl Chains {
    /// `intermediates` in DER, the leaf's issuer first.
    pub(super) fn share(&self, intermediates: &[Vec<u8>]) -> Result<Shared, ErrorStack> {
        let parse = || intermediates.iter().map(|der| X509::from_der(der)).collect::<Result<Vec<_>, _>>();
        let bytes: usize = intermediates.iter().map(Vec::len).sum();
        let own = |chain: Chain| Shared { chain: Arc::new(chain), charged_bytes: bytes * PARSED_FACTOR };
        if bytes > SHARED_BYTES_MAX {
            return Ok(own(Chain { intermediates: parse()? }));
        }
        let digests: Vec<u8> = intermediates.iter().flat_map(|der| sha256(der)).collect();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = sha256(&digests);
        if let Some(chain) = shared.get(&digest).and_then(Weak::upgrade) {
            return Ok(Shared { chain, charged_bytes: 0 });
        }
        if shared.len() >= SHARED_MAX {
            shared.retain(|_, chain| chain.strong_count() > 0);
        }
        let chain = Chain { intermediates: parse()? };
        if shared.len() >= SHARED_MAX {
            return Ok(own(chain));
        }
        let chain = Arc::new(chain);
        shared.insert(digest, Arc::downgrade(&chain));
        Ok(Shared { chain, charged_bytes: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_bundles::authority;
    use super::*;

    #[test]
    fn the_same_intermediates_stand_in_memory_once() {
        let chains = Chains::default();
        let (one, other) = (vec![authority("one")], vec![authority("other")]);
        let first = chains.share(&one).unwrap();
        assert!(Arc::ptr_eq(&first.chain, &chains.share(&one).unwrap().chain));
        assert!(!Arc::ptr_eq(&first.chain, &chains.share(&other).unwrap().chain));
        assert_eq!((first.chain.intermediates.len(), first.charged_bytes), (1, 0));
        assert_eq!(chains.share(&[]).unwrap().chain.intermediates.len(), 0);
    }

    #[test]
    fn a_chain_is_shared_up_to_its_limits_and_charged_beyond() {
        let chains = Chains::default();
        let der = authority("one");
        let repeated = |times: usize| vec![der.clone(); times];
        let fits = SHARED_BYTES_MAX / der.len();
        assert_eq!(chains.share(&repeated(fits)).unwrap().charged_bytes, 0);
        let over = chains.share(&repeated(fits + 1)).unwrap();
        assert_eq!(over.charged_bytes, (fits + 1) * der.len() * PARSED_FACTOR);
    }

    #[test]
    fn issuers_without_number_are_charged_and_make_room_when_they_go() {
        let chains = Chains::default();
        let ders: Vec<_> = (0..=SHARED_MAX).map(|n| vec![authority(&format!("n{n}"))]).collect();
        let shared: Vec<_> = ders.iter().map(|chain| chains.share(chain).unwrap()).collect();
        let (last, first) = shared.split_last().unwrap();
        assert!(first.iter().all(|chain| chain.charged_bytes == 0));
        assert!(last.charged_bytes > 0);
        drop(shared);
        assert_eq!(chains.share(&ders[SHARED_MAX]).unwrap().charged_bytes, 0);
    }
}
