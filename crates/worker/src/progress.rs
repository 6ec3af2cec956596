// SPDX-License-Identifier: Apache-2.0
//! Whether a storage still moves: what waits for it are measured by.
//!
//! A reader gives a storage time, and gets its answer late when the storage is slow; it gives up
//! when nothing has moved for that time. What moves is told by a [`Pulse`]: one of each flight, one of
//! each mount for who waits for a turn, one of the memory for who waits for some. A dead line has none,
//! and neither has one on which less than [`MOVED_MIN`] comes within the time.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing::{Id, Span};
use types::{Deadline, MOVED_MIN};

/// How much later than the storage's own time a reader gives up who waits for a flight, so that what
/// the flight ended with is told.
const GRACE: Duration = Duration::from_millis(500);

/// Tells when something moved last. By the clock of the runtime's timers, which the waits use.
#[derive(Debug)]
pub(crate) struct Pulse {
    start: tokio::time::Instant,
    /// Nanoseconds from the start to the last beat; 0 before the first.
    last: AtomicU64,
    /// Bytes since then.
    moved: AtomicU64,
    /// Bytes in all.
    total: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Pulse {
            start: tokio::time::Instant::now(),
            last: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            total: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// Takes note of bytes that came; enough of them are a beat.
    pub(crate) fn moved(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        if self.moved.fetch_add(bytes, Ordering::Relaxed) + bytes >= MOVED_MIN {
            self.beat();
        }
    }

    /// Takes note of something that is progress whatever its size, such as the end of an answer.
    pub(crate) fn beat(&self) {
        self.moved.store(0, Ordering::Relaxed);
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.fetch_max(now.max(1), Ordering::Relaxed);
    }

    /// Returns how many bytes came so far.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Returns when the last beat was.
    pub(crate) fn last(&self) -> Option<Instant> {
        match self.last.load(Ordering::Relaxed) {
            0 => None,
            last => Some((self.start + Duration::from_nanos(last)).into_std()),
        }
    }
}

/// The progress of one flight: that of those before it while it waits for its turn, then its own.
#[derive(Debug)]
pub(crate) struct Progress {
    own: Pulse,
    queue: Arc<Pulse>,
    /// The last beat of the queue when it had its turn.
    turn: OnceLock<Option<Instant>>,
    /// The spans of the flight and of whoever began it, while traces are sent.
    spans: OnceLock<(Id, Option<Id>)>,
}

impl Progress {
    pub(crate) fn new(queue: &Arc<Pulse>) -> Arc<Self> {
        Arc::new(Progress {
            own: Pulse::default(),
            queue: Arc::clone(queue),
            turn: OnceLock::new(),
            spans: OnceLock::new(),
        })
    }

    /// Tells in which span it flies, which is made by who begins it.
    pub(crate) fn is_told_by(&self, span: &Span) {
        if let Some(id) = span.id() {
            self.spans.get_or_init(|| (id, Span::current().id()));
        }
    }

    /// Links whoever waits for it now to it, unless it was begun for them.
    pub(crate) fn link(&self) {
        if let Some((flight, beginner)) = self.spans.get() {
            let waiting = Span::current();
            if waiting.id() != *beginner {
                waiting.follows_from(flight.clone());
            }
        }
    }

    /// From now on only its own bytes count. The turn itself is no progress: those before it may have
    /// failed.
    pub(crate) fn has_turn(&self) {
        self.turn.get_or_init(|| self.queue.last());
    }

    /// Takes note of bytes, for itself and for those who wait behind it.
    pub(crate) fn moved(&self, bytes: u64) {
        self.own.moved(bytes);
        self.queue.moved(bytes);
    }

    /// Takes note that a part of what was asked is complete.
    pub(crate) fn arrived(&self) {
        self.own.beat();
        self.queue.beat();
    }

    pub(crate) fn last(&self) -> Option<Instant> {
        let queue = match self.turn.get() {
            Some(at_turn) => *at_turn,
            None => self.queue.last(),
        };
        self.own.last().max(queue)
    }
}

/// Returns the deadline of who has seen the last beat.
pub(crate) fn renewed(deadline: Deadline, last: Option<Instant>) -> Deadline {
    last.map_or(deadline, |last| deadline.renewed(last))
}

/// Waits for as long as something moves: `None` when nothing has for the time that the deadline gave.
pub(crate) async fn while_moving<T>(
    deadline: Deadline,
    last: impl Fn() -> Option<Instant>,
    work: impl Future<Output = T>,
) -> Option<T> {
    wait(deadline, Duration::ZERO, last, work).await
}

/// The same for who waits for work that has such a deadline itself.
pub(crate) async fn while_other_moves<T>(
    deadline: Deadline,
    last: impl Fn() -> Option<Instant>,
    work: impl Future<Output = T>,
) -> Option<T> {
    wait(deadline, GRACE, last, work).await
}

async fn wait<T>(
    deadline: Deadline,
    grace: Duration,
    last: impl Fn() -> Option<Instant>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        let until = renewed(deadline, last());
        let end = until.instant() + grace;
        match tokio::time::timeout_at(end.into(), &mut work).await {
            Ok(done) => return Some(done),
            Err(_) if renewed(deadline, last()) > until => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    const SPAN: Duration = Duration::from_secs(10);

    fn deadline() -> Deadline {
        #[derive(Debug)]
        struct Paused;
        impl types::Clock for Paused {
            fn now(&self) -> Instant {
                tokio::time::Instant::now().into_std()
            }
            fn wall(&self) -> std::time::SystemTime {
                std::time::SystemTime::UNIX_EPOCH
            }
        }
        types::Clock::deadline(&Paused, SPAN)
    }

    /// Waits for what never comes while a flight moves so many bytes a second for some seconds; returns
    /// how long the wait was.
    async fn waited(bytes: u64, seconds: u64) -> Duration {
        let began = tokio::time::Instant::now();
        let pulse = Arc::new(Pulse::default());
        let moving = Arc::clone(&pulse);
        tokio::runtime::Handle::current().spawn(async move {
            for _ in 0..seconds {
                tokio::time::sleep(Duration::from_secs(1)).await;
                moving.moved(bytes);
            }
        });
        let done = while_moving(deadline(), || pulse.last(), pending::<()>()).await;
        assert_eq!(done, None);
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_lasts_for_as_long_as_something_moves_and_no_trickle_keeps_it() {
        let is = |took: Duration, seconds: u64| {
            let expected = Duration::from_secs(seconds);
            assert!(took >= expected && took < expected + GRACE, "{took:?}");
        };
        is(waited(MOVED_MIN, 100).await, 110);
        // Less than what counts, and yet enough within the time.
        is(waited(MOVED_MIN / 4, 100).await, 110);
        is(waited(1, 1000).await, 10);
        is(waited(0, 0).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flight_moves_with_its_queue_until_its_turn() {
        let queue = Arc::new(Pulse::default());
        let progress = Progress::new(&queue);
        assert_eq!(progress.last(), None);
        tokio::time::sleep(SPAN).await;
        queue.beat();
        let at_turn = progress.last();
        assert_eq!(at_turn, queue.last());
        progress.has_turn();
        tokio::time::sleep(SPAN).await;
        queue.beat();
        assert_eq!(progress.last(), at_turn);
        progress.moved(MOVED_MIN);
        assert!(progress.last() > at_turn);
    }
}
