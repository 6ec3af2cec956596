// SPDX-License-Identifier: Apache-2.0
//! The one budget of bytes that pieces live in, from the request to the last reader.
//!
//! A piece's bytes carry their share of the budget with them ([`Budget::wrap`]): it returns when
//! the last slice of them is dropped, wherever that is, so the bound holds whatever the load.
//! Demand waits for its share, first come first served; readahead takes only what is free, and at
//! most [`AHEAD_SHARE`] of the whole, so that readers never wait behind guesses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use types::{ByteSize, Deadline, Error, ErrorKind, PAGE_SIZE, Result};

use crate::progress::{Pulse, while_moving};

/// Readahead leaves a quarter of the budget to demand.
const AHEAD_SHARE: (u64, u64) = (3, 4);

/// A bounded number of bytes.
#[derive(Debug)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    total: usize,
    waiting: AtomicUsize,
    /// Beats while what takes the memory moves, on any way: then some will be free.
    pub(crate) pulse: Pulse,
}

/// A part of the budget; returns to it when dropped.
#[derive(Debug)]
pub(crate) struct Share(OwnedSemaphorePermit);

impl Share {
    /// Cuts off the share of `bytes` bytes.
    pub(crate) fn split(&mut self, bytes: u64) -> Share {
        let units = units(bytes) as usize;
        Share(
            self.0
                .split(units)
                .expect("a share is as large as its pieces together"),
        )
    }

    /// Adds another share of the same budget.
    pub(crate) fn merge(&mut self, other: Share) {
        self.0.merge(other.0);
    }
}

/// The budget is counted in pages: a short last page costs a whole one.
fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PAGE_SIZE)).unwrap_or(u32::MAX)
}

struct Owned {
    bytes: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Budget {
    pub(crate) fn new(total: ByteSize) -> Self {
        let total = units(total.0) as usize;
        Budget {
            units: Arc::new(Semaphore::new(total)),
            total,
            waiting: AtomicUsize::new(0),
            pulse: Pulse::default(),
        }
    }

    /// Takes a share at once, or says that there is none.
    pub(crate) fn try_take(&self, bytes: u64) -> Option<Share> {
        Arc::clone(&self.units)
            .try_acquire_many_owned(units(bytes))
            .ok()
            .map(Share)
    }

    /// Takes a share for a guess: only while the part reserved for demand stays free.
    pub(crate) fn try_take_ahead(&self, bytes: u64) -> Option<Share> {
        let reserved = self.total as u64 * (AHEAD_SHARE.1 - AHEAD_SHARE.0) / AHEAD_SHARE.1;
        let free = self.units.available_permits() as u64;
        if free < reserved + u64::from(units(bytes)) {
            return None;
        }
        self.try_take(bytes)
    }

    /// Tells until it is dropped that somebody wants memory.
    pub(crate) fn want(&self) -> Wanting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Wanting(&self.waiting)
    }

    /// Waits for a share, for as long as something moves. Dropping the future takes nothing.
    pub(crate) async fn take(&self, bytes: u64, deadline: Deadline) -> Result<Share> {
        if units(bytes) as usize > self.total {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{bytes} bytes at once are more than all memory for data"),
            ));
        }
        let acquire = Arc::clone(&self.units).acquire_many_owned(units(bytes));
        match while_moving(deadline, || self.pulse.last(), acquire).await {
            Some(Ok(permit)) => Ok(Share(permit)),
            Some(Err(_)) => Err(Error::internal("the memory budget was closed")),
            None => {
                let span = deadline.span();
                Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "waited {span:?} for memory and nothing moved; raise --memory or read with \
                         fewer readers"
                    ),
                ))
            }
        }
    }

    /// Waits for a share, or for all there is where that is less.
    pub(crate) async fn take_at_most(&self, bytes: u64, deadline: Deadline) -> Result<Share> {
        let all = self.total as u64 * PAGE_SIZE;
        self.take(bytes.min(all), deadline).await
    }

    /// Returns whether somebody waits for memory.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Makes bytes that carry their share until their last slice is dropped.
    pub(crate) fn wrap(bytes: Vec<u8>, share: Share) -> Bytes {
        Bytes::from_owner(Owned {
            bytes,
            _share: share,
        })
    }

    /// Returns (bytes in use, bytes in all).
    pub(crate) fn usage(&self) -> (u64, u64) {
        let used = self.total.saturating_sub(self.units.available_permits());
        (used as u64 * PAGE_SIZE, self.total as u64 * PAGE_SIZE)
    }
}

/// Somebody wants memory.
pub(crate) struct Wanting<'a>(&'a AtomicUsize);

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_returns_with_the_last_slice() {
        let budget = Budget::new(ByteSize(4 * PAGE_SIZE));
        let mut share = budget.try_take(2 * PAGE_SIZE).unwrap();
        let bytes = Budget::wrap(vec![7; 10], share.split(10));
        let slice = bytes.slice(2..4);
        drop((bytes, share));
        assert_eq!(budget.usage().0, PAGE_SIZE);
        assert!(budget.try_take(4 * PAGE_SIZE).is_none());
        drop(slice);
        assert_eq!(budget.usage().0, 0);
    }

    #[test]
    fn guesses_leave_room_for_demand() {
        let budget = Budget::new(ByteSize(8 * PAGE_SIZE));
        let ahead = budget.try_take_ahead(6 * PAGE_SIZE).unwrap();
        assert!(budget.try_take_ahead(1).is_none());
        assert!(budget.try_take(2 * PAGE_SIZE).is_some());
        drop(ahead);
    }
}
