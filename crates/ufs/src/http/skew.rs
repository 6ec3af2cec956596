// SPDX-License-Identifier: Apache-2.0
//! How far the clock of a storage is from ours.
//!
//! Each answer tells the storage's time in its header `Date`. Some minutes matter: a signature holds
//! a time, and is refused when that is too far off; credentials end at a time of the storage's; what
//! was left behind is told by its age. The latest answer counts, so that a clock that is set right
//! is right at once. An answer out of a proxy's store tells an old time, and says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::{AGE, DATE};
use types::Clock;

use super::text::{header_text, http_time};

/// Less is noise: an answer takes time, and its header tells whole seconds. Storages refuse
/// signatures that are off by fifteen minutes.
const TOLERATED_SECONDS: u64 = 60;

/// The difference between two clocks.
#[derive(Debug)]
pub(crate) struct Skew {
    clock: Arc<dyn Clock>,
    /// How many seconds the storage's clock is ahead of ours.
    ahead: AtomicI64,
}

impl Skew {
    /// Takes both for equal until an answer says otherwise.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Skew {
            clock,
            ahead: AtomicI64::new(0),
        })
    }

    /// Takes the time of an answer that has just come.
    pub(crate) fn learn(&self, headers: &HeaderMap) {
        let date = header_text(headers, DATE).map_or(0, http_time);
        if date <= 0 || headers.contains_key(AGE) {
            return;
        }
        let ours = seconds(self.clock.wall());
        self.ahead
            .store(date / 1_000_000_000 - ours, Ordering::Relaxed);
    }

    /// Returns how many seconds the storage's clock is ahead, or less than zero when it is behind;
    /// zero when that may be noise.
    pub(crate) fn ahead(&self) -> i64 {
        let ahead = self.ahead.load(Ordering::Relaxed);
        match ahead.unsigned_abs() > TOLERATED_SECONDS {
            true => ahead,
            false => 0,
        }
    }

    /// Returns whether it is another difference than the one that was known before.
    pub(crate) fn differs_from(&self, ahead_before: i64) -> bool {
        self.ahead().abs_diff(ahead_before) > TOLERATED_SECONDS
    }

    /// Returns what time it is at the storage.
    pub(crate) fn now(&self) -> SystemTime {
        moved(self.clock.wall(), self.ahead())
    }

    /// Returns when a moment of the storage's clock is by ours.
    pub(crate) fn by_ours(&self, theirs: SystemTime) -> SystemTime {
        moved(theirs, self.ahead().saturating_neg())
    }

    /// Returns what a user is told of a clock that is wrong; `None` when it is right.
    pub(crate) fn advice(&self) -> Option<String> {
        let ahead = self.ahead();
        let (side, off) = match ahead {
            0 => return None,
            1.. => ("behind", ahead.unsigned_abs()),
            _ => ("ahead of", ahead.unsigned_abs()),
        };
        let minutes = off / 60;
        let off = match minutes {
            0..120 => format!("{minutes} minutes"),
            120..2880 => format!("{} hours", minutes / 60),
            _ => format!("{} days", minutes / 1440),
        };
        Some(format!(
            "the clock of this machine is {off} {side} that of the storage: set it, or let NTP"
        ))
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Moves a time; one that cannot be told stays.
fn moved(time: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    let moved = match seconds < 0 {
        true => time.checked_sub(by),
        false => time.checked_add(by),
    };
    moved.unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use reqsign_core::time::Timestamp;
    use types::ManualClock;

    use super::*;

    fn told(time: SystemTime) -> HeaderMap {
        let time = Timestamp::from_second(seconds(time)).unwrap();
        let date = HeaderValue::from_str(&time.format_http_date()).unwrap();
        HeaderMap::from_iter([(DATE, date)])
    }

    #[test]
    fn a_difference_is_learnt_from_answers_and_forgotten_when_the_clock_is_set_right() {
        let clock = Arc::new(ManualClock::default());
        let skew = Skew::new(Arc::clone(&clock) as _);
        let theirs = clock.wall();
        skew.learn(&told(theirs));
        assert_eq!((skew.ahead(), skew.advice()), (0, None));
        clock.advance(Duration::from_secs(7200));
        skew.learn(&told(theirs));
        assert!(skew.differs_from(0) && !skew.differs_from(-7201));
        assert_eq!(seconds(skew.now()), seconds(theirs));
        assert_eq!(seconds(skew.by_ours(theirs)), seconds(clock.wall()));
        let advice = skew.advice().unwrap();
        assert!(advice.contains("2 hours ahead of that of"), "{advice}");
        skew.learn(&told(clock.wall() + Duration::from_secs(301)));
        let advice = skew.advice().unwrap();
        assert!(advice.contains("5 minutes behind that of"), "{advice}");
        skew.learn(&told(clock.wall()));
        assert_eq!(skew.advice(), None);
    }

    #[test]
    fn what_tells_no_time_of_now_teaches_nothing() {
        let clock = Arc::new(ManualClock::default());
        let skew = Skew::new(Arc::clone(&clock) as _);
        let mut old = told(clock.wall() - Duration::from_secs(9000));
        old.insert(AGE, HeaderValue::from_static("9000"));
        let wrong = HeaderMap::from_iter([(DATE, HeaderValue::from_static("soon"))]);
        for headers in [old, wrong, HeaderMap::new()] {
            skew.learn(&headers);
            assert_eq!(skew.ahead(), 0);
        }
    }
}
