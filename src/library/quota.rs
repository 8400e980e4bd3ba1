//! Bytes that a library may use: clips, kept features and uploads under way.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// The count, shared by everything that writes.
#[derive(Debug)]
pub(super) struct Quota {
    used: Mutex<u64>,
    most: u64,
}

impl Quota {
    pub fn new(used: u64, most: u64) -> Arc<Quota> {
        Arc::new(Quota {
            used: Mutex::new(used),
            most,
        })
    }

    pub fn used(&self) -> u64 {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn most(&self) -> u64 {
        self.most
    }

    /// Takes so many bytes, or none and says how many are missing.
    pub fn take(&self, bytes: u64) -> Result<(), u64> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = used.saturating_add(bytes);
        if wanted > self.most {
            return Err(wanted - self.most);
        }
        *used = wanted;
        Ok(())
    }

    pub fn give_back(&self, bytes: u64) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(bytes);
    }

    pub fn exhausted(&self) -> Error {
        Error::exhausted(format!(
            "clips and their features would take more than admin.quota_bytes = {}: delete clips, \
             or have the operator raise it",
            self.most
        ))
        .for_good()
    }
}

/// Bytes taken for something that may yet fail: given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    pub quota: Arc<Quota>,
    pub bytes: u64,
}

impl Reserved {
    /// They stay taken.
    pub fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.quota.give_back(self.bytes);
    }
}
