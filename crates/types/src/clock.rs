// SPDX-License-Identifier: Apache-2.0
//! Time comes in through here, so that a test can move it.
//!
//! [`Clock`] is the seam, [`SystemClock`] the real one, [`ManualClock`] the one of tests.
//! [`Deadline`] is passed down as a value with every operation that can wait. What moves bytes may
//! renew it: see [`MOVED_MIN`].

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// Longer waits, which anybody may ask for, would not fit into the kernel's clock.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Bytes that make progress. Whoever moves so many within the time that a deadline gave has it anew;
/// a line on which less comes is as good as dead.
pub const MOVED_MIN: u64 = 64 << 10;

/// Tells the time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Returns a monotonic instant, for deadlines and durations.
    fn now(&self) -> Instant;
    /// Returns the wall clock, for what is compared with times on disk or of a storage.
    fn wall(&self) -> SystemTime;

    /// Returns the deadline that lies `after` from now; a century counts as for ever.
    fn deadline(&self, after: Duration) -> Deadline {
        let span = after.min(CENTURY);
        let instant = self.now() + span;
        Deadline { instant, span }
    }
}

/// The clock of the machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the seam itself")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[allow(clippy::disallowed_methods, reason = "this is the seam itself")]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that moves only when it is told to.
#[derive(Debug)]
pub struct ManualClock {
    start: (Instant, SystemTime),
    moved: Mutex<Duration>,
}

impl Default for ManualClock {
    fn default() -> Self {
        ManualClock {
            start: (SystemClock.now(), SystemClock.wall()),
            moved: Mutex::new(Duration::ZERO),
        }
    }
}

impl ManualClock {
    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        *self.moved.lock().expect("no holder of this lock panics") += by;
    }

    fn moved(&self) -> Duration {
        *self.moved.lock().expect("no holder of this lock panics")
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.start.0 + self.moved()
    }

    fn wall(&self) -> SystemTime {
        self.start.1 + self.moved()
    }
}

/// The instant after which the caller no longer wants an answer, and how long that was when the
/// caller began to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    instant: Instant,
    span: Duration,
}

impl Deadline {
    /// Returns the instant, for the timers of a runtime.
    pub fn instant(self) -> Instant {
        self.instant
    }

    /// Returns how long a caller waits in which nothing moves.
    pub fn span(self) -> Duration {
        self.span
    }

    /// Returns the deadline of a caller for whom something moved at `moved`: never an earlier one.
    #[must_use]
    pub fn renewed(self, moved: Instant) -> Deadline {
        let instant = self.instant.max(moved + self.span);
        Deadline { instant, ..self }
    }

    /// Returns what is left at `now`, zero when it has passed.
    pub fn left(self, now: Instant) -> Duration {
        self.instant.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes_when_the_clock_moves() {
        let clock = ManualClock::default();
        let deadline = clock.deadline(Duration::from_secs(5));
        clock.advance(Duration::from_secs(3));
        assert_eq!(deadline.left(clock.now()), Duration::from_secs(2));
        clock.advance(Duration::from_secs(3));
        assert_eq!(deadline.left(clock.now()), Duration::ZERO);
    }

    #[test]
    fn a_deadline_is_renewed_by_what_moves_and_never_comes_earlier() {
        let clock = ManualClock::default();
        let began = clock.now();
        let deadline = clock.deadline(Duration::from_secs(5));
        clock.advance(Duration::from_secs(3));
        let renewed = deadline.renewed(clock.now());
        assert_eq!(renewed.left(clock.now()), Duration::from_secs(5));
        assert_eq!(renewed.renewed(began), renewed);
        assert_eq!(renewed.span(), deadline.span());
    }

    #[test]
    fn no_wait_is_too_long() {
        let deadline = SystemClock.deadline(Duration::MAX);
        assert!(deadline.left(SystemClock.now()) > CENTURY / 2);
    }
}
