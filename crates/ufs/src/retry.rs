// SPDX-License-Identifier: Apache-2.0
//! Sending again what may succeed: the one place of Forebay that retries requests to a storage.
//!
//! Only errors that say so are retried, with pauses that double from 50 ms to 2 s, each cut by a
//! random part so that many clients do not come back together. A storage that says when to come
//! back is not asked before. The deadline ends it, not a count; bytes that come renew it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use types::{Clock, Deadline, Error, ErrorKind, MOVED_MIN, Result};

use crate::Counters;
use crate::counters::count;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// How often the operation failed before, whose request is under way.
    static FAILURES: u32;
}

/// Returns how often the operation failed before, for which the current task asks now.
pub(crate) fn failures_before() -> u32 {
    FAILURES.try_with(|failures| *failures).unwrap_or(0)
}

/// The tries of one operation.
#[derive(Debug)]
pub(crate) struct Retry {
    deadline: Deadline,
    /// Bytes that came since the deadline was last renewed.
    moved: u64,
    failures: u32,
    /// The latest failure that says more than that time ran out.
    cause: Option<Error>,
    /// How long the storage asked us to wait before the next try.
    wait: Duration,
    noise: u64,
}

impl Retry {
    /// Starts an operation that must end at `deadline`.
    pub(crate) fn new(deadline: Deadline) -> Self {
        // The standard library's hash keys are random: enough to keep clients apart.
        Retry {
            deadline,
            moved: 0,
            failures: 0,
            cause: None,
            wait: Duration::ZERO,
            noise: RandomState::new().build_hasher().finish(),
        }
    }

    /// Makes a request the next try, so that its span tells which one it is.
    pub(crate) fn attempt<F: Future>(
        &self,
        request: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        FAILURES.scope(self.failures, request)
    }

    /// Returns when the operation must end, unless more comes.
    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Forgets the failures so far: bytes came. Enough of them renew the deadline.
    pub(crate) fn progressed(&mut self, bytes: u64, now: Instant) {
        self.failures = 0;
        self.cause = None;
        self.moved += bytes;
        if self.moved >= MOVED_MIN {
            self.moved = 0;
            self.deadline = self.deadline.renewed(now);
        }
    }

    /// Makes the next pause at least as long as the storage asked for.
    pub(crate) fn wait_for(&mut self, wait: Option<Duration>) {
        self.wait = wait.unwrap_or_default();
    }

    /// Waits before the next try, or gives the error back when there should be none.
    pub(crate) async fn pause(
        &mut self,
        clock: &dyn Clock,
        counters: &Counters,
        error: Error,
    ) -> Result<()> {
        self.failures += 1;
        if !error.is_retryable() {
            return Err(error);
        }
        let pause = self.next_pause().max(std::mem::take(&mut self.wait));
        if pause >= self.deadline.left(clock.now()) {
            let error = match self.cause.take() {
                Some(cause) if error.kind() == ErrorKind::Timeout => cause,
                _ => error,
            };
            return Err(match self.failures {
                1 => error,
                tries => error.context(format!("gave up after {tries} tries")),
            });
        }
        if error.kind() != ErrorKind::Timeout {
            self.cause = Some(error.clone());
        }
        tracing::debug!(%error, ?pause, "sending again");
        tokio::time::sleep(pause).await;
        count(&counters.retries);
        Ok(())
    }

    /// Returns between half of the pause that is due and all of it.
    fn next_pause(&mut self) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(10));
        self.noise = self
            .noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let half = doubled.min(PAUSE_MAX) / 2;
        half + half.mul_f64((self.noise >> 11) as f64 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::ManualClock;

    fn busy() -> Error {
        Error::new(ErrorKind::Unavailable, "slow down").retryable()
    }

    #[test]
    fn pauses_double_with_noise_up_to_a_limit() {
        let mut retry = Retry::new(ManualClock::default().deadline(Duration::from_secs(60)));
        for (failures, least, most) in [(1, 25, 50), (2, 50, 100), (3, 100, 200), (40, 1000, 2000)]
        {
            retry.failures = failures;
            let pause = retry.next_pause();
            let bounds = Duration::from_millis(least)..=Duration::from_millis(most);
            assert!(bounds.contains(&pause), "{failures}: {pause:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_succeed_comes_back_at_once() {
        let (clock, counters) = (ManualClock::default(), Counters::default());
        let mut retry = Retry::new(clock.deadline(Duration::from_secs(60)));
        let denied = Error::new(ErrorKind::PermissionDenied, "no");
        let error = retry.pause(&clock, &counters, denied).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(counters.snapshot().retries, 0);
    }

    #[tokio::test]
    async fn the_cause_is_told_rather_than_that_time_ran_out() {
        let (clock, counters) = (ManualClock::default(), Counters::default());
        let mut retry = Retry::new(clock.deadline(Duration::from_millis(120)));
        retry.pause(&clock, &counters, busy()).await.unwrap();
        clock.advance(Duration::from_millis(120));
        let late = Error::new(ErrorKind::Timeout, "late").retryable();
        let error = retry.pause(&clock, &counters, late).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }

    #[tokio::test]
    async fn a_wait_beyond_the_deadline_ends_the_tries_at_once() {
        let (clock, counters) = (ManualClock::default(), Counters::default());
        let mut retry = Retry::new(clock.deadline(Duration::from_secs(60)));
        retry.wait_for(Some(Duration::from_secs(61)));
        let error = retry.pause(&clock, &counters, busy()).await.unwrap_err();
        assert_eq!(error.to_string(), "slow down");
        retry.wait_for(None);
        retry.pause(&clock, &counters, busy()).await.unwrap();
    }

    #[test]
    fn bytes_that_come_renew_the_deadline_and_a_trickle_does_not() {
        let clock = ManualClock::default();
        let mut retry = Retry::new(clock.deadline(Duration::from_secs(60)));
        let first = retry.deadline();
        clock.advance(Duration::from_secs(30));
        retry.progressed(MOVED_MIN - 1, clock.now());
        assert_eq!(retry.deadline(), first);
        retry.progressed(1, clock.now());
        assert_eq!(retry.deadline().left(clock.now()), Duration::from_secs(60));
        clock.advance(Duration::from_secs(1));
        retry.progressed(1, clock.now());
        assert_eq!(retry.deadline().left(clock.now()), Duration::from_secs(59));
    }

    #[tokio::test]
    async fn the_deadline_ends_the_tries() {
        let (clock, counters) = (ManualClock::default(), Counters::default());
        let mut retry = Retry::new(clock.deadline(Duration::from_millis(120)));
        retry.pause(&clock, &counters, busy()).await.unwrap();
        clock.advance(Duration::from_millis(100));
        let error = retry.pause(&clock, &counters, busy()).await.unwrap_err();
        assert_eq!(error.to_string(), "gave up after 2 tries: slow down");
        assert_eq!(counters.snapshot().retries, 1);
    }
}
