// SPDX-License-Identifier: Apache-2.0
//! How many requests for data a storage is sent at a time: as many as pay.
//!
//! A few windows a second, each judged by what came of it:
//!
//! - **Grow** while the requests that there are take nearly all turns: by a part, on trial. The trial is
//!   kept when bytes a second grew by a fair share of it, and else taken back and left alone for a
//!   while, longer each time (hill climbing on throughput).
//! - **Halve** when the storage asked to slow down or left requests without an answer, once a window:
//!   additive increase and multiplicative decrease is what keeps many clients of one resource fair
//!   (Chiu and Jain, 1989), and TCP lives by it (RFC 5681).
//! - **Shrink** when requests hold their turns for longer than [`HELD_MAX`] on average: then they queue
//!   in the storage or on the line, where no reader overtakes a guess, and not here, where one does. A
//!   target for the delay, as LEDBAT has one (RFC 6817). It is a trial too: taken back when it cost
//!   bytes a second.
//!
//! Plain data, no I/O: the clock is the caller's.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What is judged at once, if it is long enough for a few requests.
const WINDOW: Duration = Duration::from_millis(500);
const WINDOW_REQUESTS: u32 = 4;
/// Windows that are longer were idle in between.
const WINDOW_MAX: Duration = Duration::from_secs(60);

/// The share of turns that must be taken before more are of any use: loads and neighbours leave some.
const FULL: f64 = 0.65;
/// What a trial must bring, as a share of what it would if width were all that counts.
const PAYS: f64 = 0.25;
/// What a smaller width may cost, of the bytes a second.
const MAY_COST: f64 = 0.1;
/// How long a request may hold its turn on average before width is taken away.
const HELD_MAX: Duration = Duration::from_secs(2);
/// A trial that was taken back is not repeated for so long.
const REST: Duration = Duration::from_secs(5);
const REST_MAX: Duration = Duration::from_secs(80);
/// A storage that is in trouble is left so long with what it has.
const RECOVERY: Duration = Duration::from_secs(2);

/// How many requests for data may be under way at a time for a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Never fewer.
    pub least: usize,
    /// To begin with.
    pub first: usize,
    /// Never more.
    pub most: usize,
}

impl Bounds {
    /// The same number always.
    pub fn fixed(width: usize) -> Self {
        Bounds {
            least: width,
            first: width,
            most: width,
        }
    }
}

/// Why the width was changed, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Trials of more that paid.
    pub grown: u64,
    /// Trials, of more or of fewer, that were taken back.
    pub taken_back: u64,
    /// Halved because the storage asked to slow down, or did not answer.
    pub halved: u64,
    /// Made smaller because requests took long, and it cost nothing.
    pub shrunk: u64,
}

/// The width of one mount.
#[derive(Debug)]
pub(super) struct Width {
    bounds: Bounds,
    now: usize,
    window: Option<Window>,
    trial: Option<Trial>,
    rest: Duration,
    /// Neither more nor fewer are tried before.
    rests_until: Option<Instant>,
    trouble: u64,
    changes: Changes,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    bytes: u64,
    ended: u32,
    held: Duration,
    under_way: u64,
}

/// A width that is tried: what there was before it.
#[derive(Debug)]
struct Trial {
    width: usize,
    rate: f64,
}

/// The end of a request.
#[derive(Debug)]
pub(super) struct Ended {
    /// Bytes that came so far over all requests of the mount.
    pub(super) bytes: u64,
    /// How long it held its turn.
    pub(super) held: Duration,
    /// Requests that were under way until now, this one among them.
    pub(super) under_way: usize,
    /// How often so far the storage asked to slow down or did not answer.
    pub(super) trouble: u64,
}

impl Width {
    pub(super) fn new(bounds: Bounds) -> Self {
        let least = bounds.least.max(1);
        let most = bounds.most.max(least);
        Width {
            bounds: Bounds {
                least,
                first: bounds.first,
                most,
            },
            now: bounds.first.clamp(least, most),
            window: None,
            trial: None,
            rest: REST,
            rests_until: None,
            trouble: 0,
            changes: Changes::default(),
        }
    }

    pub(super) fn now(&self) -> usize {
        self.now
    }

    pub(super) fn changes(&self) -> Changes {
        self.changes
    }

    /// Takes note of the end of a request, and judges the window when it is over.
    pub(super) fn ended(&mut self, now: Instant, end: &Ended) {
        let window = self.window.get_or_insert(Window {
            began: now,
            bytes: end.bytes,
            ended: 0,
            held: Duration::ZERO,
            under_way: 0,
        });
        window.ended += 1;
        window.held += end.held;
        window.under_way += end.under_way as u64;
        let lasted = now.saturating_duration_since(window.began);
        if lasted < WINDOW || window.ended < WINDOW_REQUESTS {
            return;
        }
        let Some(window) = self.window.take() else {
            return;
        };
        let troubles = end.trouble.saturating_sub(self.trouble);
        self.trouble = end.trouble;
        if troubles > 0 {
            self.halve(now);
        } else if lasted <= WINDOW_MAX {
            let rate = (end.bytes - window.bytes) as f64 / lasted.as_secs_f64();
            let requests = f64::from(window.ended);
            let is_full = window.under_way as f64 / requests >= FULL * self.now as f64;
            self.judge(now, rate, (is_full, window.held / window.ended));
        } else {
            self.give_up_trial();
        }
    }

    fn halve(&mut self, now: Instant) {
        self.trial = None;
        let halved = (self.now / 2).max(self.bounds.least);
        self.changes.halved += u64::from(halved < self.now);
        self.now = halved;
        self.rests_until = Some(now + RECOVERY);
    }

    fn judge(&mut self, now: Instant, rate: f64, (is_full, held): (bool, Duration)) {
        match self.trial.take() {
            // What was fetched meanwhile says nothing about it.
            Some(trial) if !is_full && self.now > trial.width => self.now = trial.width,
            Some(trial) => {
                let before = trial.rate.max(1.0);
                let ratio = self.now as f64 / trial.width as f64;
                let (expected, kept) = match ratio > 1.0 {
                    true => (1.0 + PAYS * (ratio - 1.0), &mut self.changes.grown),
                    false => (1.0 - MAY_COST, &mut self.changes.shrunk),
                };
                if rate / before >= expected {
                    *kept += 1;
                    self.rest = REST;
                } else {
                    self.changes.taken_back += 1;
                    self.now = trial.width;
                    self.rests_until = Some(now + self.rest);
                    self.rest = (self.rest * 2).min(REST_MAX);
                    return;
                }
            }
            None => {}
        }
        if self.rests_until.is_some_and(|until| now < until) {
            return;
        }
        let tried = if held > HELD_MAX {
            (self.now * 3 / 4).max(self.bounds.least)
        } else if is_full && held < HELD_MAX / 2 {
            // Back to where it began in large steps, and beyond in small ones.
            let more = match self.now < self.bounds.first {
                true => self.now / 2,
                false => self.now / 4,
            };
            (self.now + more.max(1)).min(self.bounds.most)
        } else {
            self.now
        };
        if tried != self.now {
            let width = std::mem::replace(&mut self.now, tried);
            self.trial = Some(Trial { width, rate });
        }
    }

    /// Takes a trial back that cannot be judged.
    fn give_up_trial(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.now = trial.width;
        }
    }
}

#[cfg(test)]
mod tests {
    use types::{Clock, ManualClock};

    use super::*;

    const BOUNDS: Bounds = Bounds {
        least: 4,
        first: 64,
        most: 256,
    };

    /// A storage that answers after a latency and over a line, which are all that bounds it.
    struct Model {
        clock: ManualClock,
        width: Width,
        bytes: u64,
        trouble: u64,
        latency: f64,
        bytes_per_second: f64,
        request: f64,
        /// Requests that want to be under way.
        wanted: usize,
    }

    impl Model {
        fn new(latency: f64, bytes_per_second: f64, request: f64) -> Self {
            Model {
                clock: ManualClock::default(),
                width: Width::new(BOUNDS),
                bytes: 0,
                trouble: 0,
                latency,
                bytes_per_second,
                request,
                wanted: 1000,
            }
        }

        /// Lets requests end for some seconds.
        #[allow(
            clippy::cast_possible_truncation,
            reason = "requests of a model are whole bytes"
        )]
        fn run(&mut self, seconds: f64) {
            let until = self.clock.now() + Duration::from_secs_f64(seconds);
            while self.clock.now() < until {
                let under_way = self.width.now().min(self.wanted);
                let by_latency = under_way as f64 * self.request / self.latency;
                let rate = by_latency.min(self.bytes_per_second);
                let held = under_way as f64 * self.request / rate;
                self.clock
                    .advance(Duration::from_secs_f64(self.request / rate));
                self.bytes += self.request as u64;
                let end = Ended {
                    bytes: self.bytes,
                    held: Duration::from_secs_f64(held),
                    under_way,
                    trouble: self.trouble,
                };
                self.width.ended(self.clock.now(), &end);
            }
        }
    }

    #[test]
    fn width_grows_while_latency_is_the_limit_and_not_far_beyond() {
        // 64 files of 110 KB under way at 100 ms are 70 MB/s; 200 MB/s takes 182.
        let mut model = Model::new(0.1, 200e6, 110e3);
        model.run(10.0);
        let width = model.width.now();
        assert!((150..=256).contains(&width), "{width}");
        assert!(model.width.changes().grown >= 4);
    }

    #[test]
    fn width_that_brings_nothing_is_taken_back_and_tried_ever_more_seldom() {
        let mut model = Model::new(0.015, 200e6, 110e3);
        model.run(60.0);
        let changes = model.width.changes();
        assert_eq!((changes.grown, changes.halved), (0, 0));
        assert!((2..8).contains(&changes.taken_back), "{changes:?}");
    }

    #[test]
    fn who_needs_little_gets_no_more() {
        let mut model = Model::new(0.1, 200e6, 110e3);
        model.wanted = 9;
        model.run(30.0);
        assert_eq!(model.width.now(), 64);
        assert_eq!(model.width.changes(), Changes::default());
    }

    #[test]
    fn a_storage_that_asks_to_slow_down_is_sent_half_and_later_more_again() {
        let mut model = Model::new(0.1, 80e6, 110e3);
        for expected in [32, 16, 8, 4, 4] {
            model.trouble += 1;
            model.run(0.7);
            assert_eq!(model.width.now(), expected);
        }
        assert_eq!(model.width.changes().halved, 4);
        model.run(20.0);
        assert!(model.width.now() >= 48, "{}", model.width.now());
    }

    #[test]
    fn a_slow_line_is_sent_no_more_than_keeps_it_busy() {
        let mut model = Model::new(0.015, 1.9e6, 1e6);
        model.run(600.0);
        let width = model.width.now();
        assert!(width <= 8, "{width}");
        assert!(model.width.changes().shrunk >= 8);
        // It is the line that is slow, not the storage: fewer cost nothing.
        let before = model.bytes;
        model.run(60.0);
        assert!((model.bytes - before) as f64 > 0.95 * 60.0 * 1.9e6);
    }

    #[test]
    fn a_storage_that_takes_long_for_each_request_keeps_its_width() {
        // Fewer would cost: each takes 5 s whatever the width.
        let mut model = Model::new(5.0, 1e9, 1e6);
        model.run(600.0);
        assert!(model.width.now() >= 60, "{}", model.width.now());
    }
}
