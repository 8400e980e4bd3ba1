//! How much of what is bounded each token has: detections, places of whoever follows jobs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Caller;
use crate::error::{Error, Result};

/// Counts by the tokens' names, so that a token file that is read again changes nothing. Names that
/// have none take no place.
#[derive(Clone, Default)]
pub struct Shares(Arc<Mutex<HashMap<String, usize>>>);

/// One of a token's holder; given back when dropped.
pub struct Share {
    shares: Shares,
    name: String,
}

impl Shares {
    /// One more detection.
    ///
    /// Fails with `ResourceExhausted` where the token may run no more.
    pub fn take(&self, caller: &Caller) -> Result<Share> {
        let most = caller.max_streams.unwrap_or(usize::MAX);
        self.one_of(caller, most, |count| {
            format!(
                "this token runs {count} detections, the most it may (max_streams = {most}): end one"
            )
        })
    }

    /// One more, of `most`.
    ///
    /// Fails with `ResourceExhausted`, and `full` of how many there are, where the token has as many.
    pub fn one_of(
        &self,
        caller: &Caller,
        most: usize,
        full: impl FnOnce(usize) -> String,
    ) -> Result<Share> {
        let mut running = self.lock();
        let count = running.get(&caller.name).copied().unwrap_or(0);
        if count >= most {
            return Err(Error::exhausted(full(count)));
        }
        running.insert(caller.name.clone(), count + 1);
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
        assert!(refused.to_string().contains("2 detections"), "{refused}");
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
