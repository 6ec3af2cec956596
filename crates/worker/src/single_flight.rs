// SPDX-License-Identifier: Apache-2.0
//! One flight for all who ask the same question at the same time.
//!
//! The work runs as a task of its own, so a caller that goes away neither stops it nor leaves
//! anything behind; it ends by its own deadline. The key is free again before the answer is given:
//! who asks after the answer starts anew.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::Instrument;
use types::{Error, Result};

type Answer<V> = Shared<BoxFuture<'static, Result<V>>>;

/// The questions under way.
pub(crate) struct SingleFlight<K, V> {
    flights: Arc<Mutex<HashMap<K, Answer<V>>>>,
}

impl<K, V> std::fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SingleFlight({} under way)", self.flights.lock().len())
    }
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        SingleFlight {
            flights: Arc::default(),
        }
    }
}

struct Landed<K: Eq + Hash, V> {
    key: K,
    flights: Arc<Mutex<HashMap<K, Answer<V>>>>,
}

impl<K: Eq + Hash, V> Drop for Landed<K, V> {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the flight of `key`, or starts it with `work`.
    pub(crate) fn run<F>(
        &self,
        runtime: &Handle,
        key: K,
        work: impl FnOnce() -> F,
    ) -> BoxFuture<'static, Result<V>>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&key) {
            return flight.clone().boxed();
        }
        let landed = Landed {
            key: key.clone(),
            flights: Arc::clone(&self.flights),
        };
        let (give, given) = oneshot::channel();
        let answer = given
            .map(|given| given.unwrap_or_else(|_| Err(Error::internal("a flight was aborted"))))
            .boxed()
            .shared();
        flights.insert(key, answer.clone());
        // A runtime that has ended drops the task right here, which takes the lock.
        drop(flights);
        let work = work();
        let flown = async move {
            let landed = landed;
            let done = work.await;
            // Before the answer is seen.
            drop(landed);
            give.send(done).ok();
        };
        // In the trace of who asked first.
        runtime.spawn(flown.in_current_span());
        answer.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[test]
    fn a_runtime_that_has_ended_aborts_the_flight_and_blocks_nobody() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let flights: SingleFlight<u8, u8> = SingleFlight::default();
        let answer = flights.run(&handle, 1, || async { Ok(1) });
        let other = tokio::runtime::Runtime::new().unwrap();
        assert!(other.block_on(answer).is_err());
        assert!(flights.flights.lock().is_empty());
    }

    #[tokio::test]
    async fn callers_share_a_flight_and_the_next_one_starts_anew() {
        let flights: SingleFlight<u8, usize> = SingleFlight::default();
        let (runs, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let start = || {
            let (runs, go) = (Arc::clone(&runs), Arc::clone(&go));
            flights.run(&Handle::current(), 1, move || async move {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                Ok(run)
            })
        };
        let (first, second) = (start(), start());
        drop(start());
        go.notify_one();
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (0, 0));
        let third = start();
        go.notify_one();
        assert_eq!(third.await.unwrap(), 1);
        assert!(flights.flights.lock().is_empty());
    }
}
