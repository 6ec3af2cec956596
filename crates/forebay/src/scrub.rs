// SPDX-License-Identifier: Apache-2.0
//! Scrubs of a daemon's cache: one at a time, at the pace that is asked for.
//!
//! A scrub lives as long as who waits for it: its future may be dropped at any time, and what was
//! bad until then is dropped from the cache.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::wire;
use parking_lot::Mutex;
use types::{ByteSize, Clock, Error, ErrorKind, Result};

/// Bytes compared between two looks at the pace.
const STEP_BYTES: u64 = 8 << 20;

/// The scrubs of a daemon.
pub(crate) struct Scrubs {
    store: Arc<cache::Store>,
    clock: Arc<dyn Clock>,
    /// How far the one that runs is.
    running: Mutex<Option<(cache::ScrubCounts, Instant)>>,
}

/// Says that no scrub runs any more.
struct Running<'a>(&'a Scrubs);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.running.lock() = None;
    }
}

impl Scrubs {
    pub(crate) fn new(store: Arc<cache::Store>, clock: Arc<dyn Clock>) -> Arc<Scrubs> {
        let running = Mutex::new(None);
        Arc::new(Scrubs {
            store,
            clock,
            running,
        })
    }

    /// Returns how far the scrub is that runs.
    pub(crate) fn progress(&self) -> Option<wire::Scrubbed> {
        let (counts, began) = (*self.running.lock())?;
        Some(self.described(counts, began))
    }

    /// Compares all that is cached with its checksums.
    pub(crate) async fn scrub(self: Arc<Self>, request: wire::Scrub) -> Result<wire::Scrubbed> {
        if request.bandwidth_bytes == Some(0) {
            let message = "a bandwidth of 0 compares nothing";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let began = self.clock.now();
        {
            let mut running = self.running.lock();
            if running.is_some() {
                let message = "a scrub runs already; 'forebay status' shows how far it is";
                return Err(Error::new(ErrorKind::Busy, message));
            }
            *running = Some((cache::ScrubCounts::default(), began));
        }
        let _running = Running(&self);
        let mut scrub = cache::Scrub::default();
        loop {
            let store = Arc::clone(&self.store);
            let step = move || {
                let goes_on = store.scrub_on(&mut scrub, STEP_BYTES);
                (scrub, goes_on)
            };
            let stepped = tokio::task::spawn_blocking(step).await;
            let (next, goes_on) =
                stepped.map_err(|source| Error::internal("scrub").with_source(source))?;
            scrub = next;
            let counts = scrub.counts();
            *self.running.lock() = Some((counts, began));
            if !goes_on {
                break;
            }
            if let Some(due) = due(counts.bytes, request.bandwidth_bytes) {
                tokio::time::sleep_until((began + due).into()).await;
            }
        }
        if let Some(reason) = self.store.stats().retired {
            let message = format!("the cache directory is out of use: {reason}");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let counts = scrub.counts();
        let bad = counts.bad_objects + counts.lost_objects;
        match bad {
            0 => tracing::info!("scrubbed {}: all is well", ByteSize(counts.bytes)),
            _ => tracing::warn!("scrubbed {}: {bad} files were bad", ByteSize(counts.bytes)),
        }
        Ok(self.described(counts, began))
    }

    fn described(&self, counts: cache::ScrubCounts, began: Instant) -> wire::Scrubbed {
        let elapsed = self.clock.now().saturating_duration_since(began);
        wire::Scrubbed {
            objects: counts.objects,
            pages: counts.pages,
            cached_pages: self.store.stats().pages,
            bytes: counts.bytes,
            bad_pages: counts.bad_pages,
            bad_objects: counts.bad_objects,
            lost_objects: counts.lost_objects,
            elapsed_seconds: elapsed.as_secs(),
        }
    }
}

/// Returns when so many bytes may have been read.
fn due(bytes: u64, bandwidth: Option<u64>) -> Option<Duration> {
    let millis = bytes.saturating_mul(1000).checked_div(bandwidth?)?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_bytes_over_time() {
        assert_eq!(due(500, Some(1000)), Some(Duration::from_millis(500)));
        assert_eq!(due(500, None), None);
    }
}
