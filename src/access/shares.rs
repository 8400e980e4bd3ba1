//! How many detections each token runs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Caller;
use crate::error::{Error, Result};

/// Counts by the tokens' names, so that a token file that is read again changes nothing. Names without
/// a detection take no place.
#[derive(Clone, Default)]
pub struct Shares(Arc<Mutex<HashMap<String, usize>>>);

/// One detection of a token's holder; given back when dropped.
pub struct Share {
    shares: Shares,
    name: String,
}

impl Shares {
    /// One more.
    ///
    /// Fails with `ResourceExhausted` where the token may run no more.
    pub fn take(&self, caller: &Caller) -> Result<Share> {
        let mut running = self.lock();
        let count = running.entry(caller.name.clone()).or_default();
        if let Some(most) = caller.max_streams.filter(|most| *count >= *most) {
            return Err(Error::exhausted(format!(
                "this token runs {count} detections, the most it may (max_streams = {most}): end one"
            )));
        }
        *count += 1;
        Ok(Share {
            shares: self.clone(),
            name: caller.name.clone(),
        })
    }

    /// No code under the lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut running = self.shares.lock();
        if let Some(count) = running.get_mut(&self.name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                running.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{access::Roles, error::Kind};

    #[test]
    fn a_token_runs_so_many_and_a_place_is_given_back() {
        let caller = Caller {
            name: "a".into(),
            digest: [0; 32],
            roles: Roles::ALL,
            max_streams: Some(2),
            max_upload_bytes: None,
            sources: None,
        };
        let shares = Shares::default();
        let first = shares.take(&caller).unwrap();
        let _second = shares.take(&caller).unwrap();
        let refused = shares.take(&caller).err().unwrap();
        assert_eq!(refused.kind(), Kind::ResourceExhausted);
        let other = Caller {
            name: "b".into(),
            ..caller.clone()
        };
        drop(shares.take(&other).unwrap());
        assert_eq!(shares.lock().len(), 1);
        drop(first);
        assert!(shares.take(&caller).is_ok());
    }
}
