// SPDX-License-Identifier: Apache-2.0
//! A cap of the bytes a second that come from a mount's storage, over all its requests.
//!
//! Bytes that came are waited for before more are taken off the line, which then fills up: so the
//! storage is held back as well.

use std::time::{Duration, Instant};

/// What may be caught up after a pause, so that late wake-ups do not lower the rate.
const CATCH_UP: Duration = Duration::from_millis(20);

/// The bytes of all requests as one queue that drains at a rate.
#[derive(Debug, Default)]
pub(super) struct Cap {
    bytes_per_second: Option<f64>,
    drained: Option<Instant>,
    held_back: Duration,
}

impl Cap {
    /// Sets the rate; none for no cap.
    pub(super) fn set(&mut self, bytes_per_second: Option<u64>) {
        self.bytes_per_second = bytes_per_second.map(|rate| rate.max(1) as f64);
        self.drained = None;
    }

    /// Takes note of bytes that came; returns until when to wait before more are taken.
    pub(super) fn took(&mut self, now: Instant, bytes: u64) -> Option<Instant> {
        let rate = self.bytes_per_second?;
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        let from = self.drained.map_or(now, |drained| drained.max(earliest));
        let until = from + Duration::from_secs_f64(bytes as f64 / rate);
        self.drained = Some(until);
        let wait = until.saturating_duration_since(now);
        self.held_back += wait;
        (!wait.is_zero()).then_some(until)
    }

    /// Returns how long requests were held back, together.
    pub(super) fn held_back(&self) -> Duration {
        self.held_back
    }
}

#[cfg(test)]
mod tests {
    use types::{Clock, ManualClock};

    use super::*;

    #[test]
    fn bytes_are_spread_over_time_and_pauses_are_not_made_up_for() {
        let clock = ManualClock::default();
        let mut cap = Cap::default();
        assert_eq!(cap.took(clock.now(), 1 << 30), None);
        cap.set(Some(1000));
        let began = clock.now();
        assert_eq!(
            cap.took(began, 500),
            Some(began + Duration::from_millis(500))
        );
        assert_eq!(cap.took(began, 500), Some(began + Duration::from_secs(1)));
        assert_eq!(cap.held_back(), Duration::from_millis(1500));
        clock.advance(Duration::from_secs(60));
        let now = clock.now();
        let late = now + Duration::from_millis(500) - CATCH_UP;
        assert_eq!(cap.took(now, 500), Some(late));
        cap.set(None);
        assert_eq!(cap.took(now, 1 << 30), None);
    }
}
