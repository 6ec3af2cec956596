// SPDX-License-Identifier: Apache-2.0
//! Which requests are late enough to be sent a second time.
//!
//! A storage of many machines answers most requests at once and a few after a multiple of that. A
//! reader who waits for such a one is better off asking again and taking the answer that comes first:
//! a hedged request (Dean and Barroso, The Tail at Scale, 2013). It is sent when the first answer takes
//! longer than [`FACTOR`] times what 95 of 100 recent ones took, and never for more than a small share
//! of all requests, so that a storage which is slow as a whole is not sent twice as much.
//!
//! Plain data, no I/O.

use std::time::Duration;

/// Answers remembered.
const RECENT: usize = 128;
/// Answers that must be known before one can be late.
const ENOUGH: usize = 32;
/// The quantile is reckoned anew after so many answers.
const FRESH: usize = 8;
/// How much later than the quantile is late.
const FACTOR: u32 = 3;
/// Nothing is late before: two requests cost more than they gain.
const LATE_MIN: Duration = Duration::from_millis(100);
/// One second request for so many first ones.
const SHARE: u32 = 50;
/// Second requests that may be saved up.
const SAVED_MAX: u32 = 4;

/// What was hedged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hedges {
    /// Requests that were sent a second time because their answer was late.
    pub sent: u64,
    /// Those of them whose second answer came first.
    pub won: u64,
    /// Late ones that were not sent again, because enough had been, or all turns were taken.
    pub refused: u64,
}

/// How long answers took.
#[derive(Debug, Default)]
pub(super) struct Tail {
    recent: Vec<Duration>,
    next: usize,
    /// Answers since the quantile was reckoned.
    young: usize,
    quantile: Option<Duration>,
    /// Saved up, in parts of a second request.
    saved: u32,
    pub(super) hedges: Hedges,
}

impl Tail {
    /// Takes note of how long an answer took to begin.
    pub(super) fn answered(&mut self, took: Duration) {
        if self.recent.len() < RECENT {
            self.recent.push(took);
        } else {
            self.recent[self.next] = took;
            self.next = (self.next + 1) % RECENT;
        }
        self.saved = (self.saved + 1).min(SAVED_MAX * SHARE);
        self.young += 1;
        if self.recent.len() >= ENOUGH && (self.young >= FRESH || self.quantile.is_none()) {
            self.young = 0;
            let mut sorted = self.recent.clone();
            let at = sorted.len() * 95 / 100;
            self.quantile = Some(*sorted.select_nth_unstable(at).1);
        }
    }

    /// Returns after how long an answer is late; `None` while too little is known.
    pub(super) fn late_after(&self) -> Option<Duration> {
        self.quantile
            .map(|quantile| (quantile * FACTOR).max(LATE_MIN))
    }

    /// Takes leave to send one more request, where there is room for it.
    pub(super) fn may_send(&mut self, has_room: bool) -> bool {
        let may = has_room && self.saved >= SHARE;
        match may {
            true => {
                self.saved -= SHARE;
                self.hedges.sent += 1;
            }
            false => self.hedges.refused += 1,
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn late_is_a_multiple_of_what_nearly_all_answers_took() {
        let mut tail = Tail::default();
        for index in 0..ENOUGH as u64 - 1 {
            tail.answered(millis(50 + index % 4));
        }
        assert_eq!(tail.late_after(), None);
        tail.answered(millis(5000));
        assert_eq!(tail.late_after(), Some(millis(3 * 53)));
        // A storage that got slower as a whole is late later.
        for _ in 0..RECENT {
            tail.answered(millis(400));
        }
        assert_eq!(tail.late_after(), Some(millis(1200)));
        for _ in 0..RECENT {
            tail.answered(millis(1));
        }
        assert_eq!(tail.late_after(), Some(LATE_MIN));
    }

    #[test]
    fn no_more_than_a_small_share_is_sent_again() {
        let mut tail = Tail::default();
        assert!(!tail.may_send(true));
        for _ in 0..1000 {
            tail.answered(millis(10));
            tail.may_send(true);
        }
        assert_eq!(tail.hedges.sent, 1000 / u64::from(SHARE));
        for _ in 0..10_000 {
            tail.answered(millis(10));
        }
        let at_once = (0..100).filter(|_| tail.may_send(true)).count();
        assert_eq!(at_once, SAVED_MAX as usize);
    }
}
