// SPDX-License-Identifier: Apache-2.0
//! What the objects that come back tell of the work: is it done in passes, and where in one are we?
//!
//! Work in passes reads each object once, and all of them before any for the second time: epochs,
//! whatever their order. How far apart two uses of an object are is then spread like the sum of two
//! dice: mostly about a pass, hardly ever little. In other work, where some objects are hot and many
//! are not, little is the most frequent. So the share of those that come back after less than half of
//! the mean tells one from the other: at most 0.17 were measured in epochs, with a quarter to three
//! quarters of the data in the cache, and 0.27 to 0.3 in Zipf traces.
//!
//! A pass begins where objects come back that this pass has had already. A few that do so by
//! themselves do not count. One that begins before there were as many uses as there are objects
//! was none, and two such in a row are work without passes.
//!
//! Only what comes back after it was evicted is seen here, so that hits cost nothing.

use super::Tick;

/// Of a hundred that come back, more than so many early ones end the belief in passes, ...
const EARLY_MANY: u64 = 22;
/// ... and fewer than so many begin it again.
const EARLY_FEW: u64 = 17;
/// The belief changes only after this many came back, and a quarter as many as there are objects.
const RETURNS_MIN: u64 = 200;
/// One that comes back too early for this pass outweighs so many that do not.
const SIGN: usize = 8;
/// A pass has begun after signs of one in so many objects, and of four.
const SIGNS_PART: usize = 64;
/// All of them within one use for each so many objects, and within so many uses at least: objects
/// that are read twice in a pass come back less densely.
const SIGNS_WITHIN_PART: usize = 2;
const SIGNS_WITHIN_MIN: usize = 1024;
/// So many short passes in a row are none.
const SHORT_MAX: u32 = 2;

/// What is believed of the work.
#[derive(Debug)]
pub(super) struct Passes {
    /// When the present pass began, and the one before it.
    start: Tick,
    previous: Tick,
    /// Signs that another one has begun, and when the first of them was seen.
    signs: usize,
    first_sign: Tick,
    /// How many came back since the last judgement, after how many evictions in all, and how many early.
    returns: u64,
    distances: u64,
    early: u64,
    /// Passes in a row that were too short.
    short: u32,
    believed: bool,
}

/// When an object is needed again as far as passes tell; what is worth the least is last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// In this pass.
    Soon,
    /// In the next one.
    Later,
    /// It had no part in the pass before this one.
    Never,
}

impl Passes {
    /// Work is taken to be done in passes until it shows otherwise: nothing is lost by that while
    /// nothing comes back.
    pub(super) fn new() -> Self {
        Passes {
            // What a start found in the directory was used at 0: it is due.
            start: 1,
            previous: 0,
            signs: 0,
            first_sign: 0,
            returns: 0,
            distances: 0,
            early: 0,
            short: 0,
            believed: true,
        }
    }

    pub(super) fn are_believed(&self) -> bool {
        self.believed
    }

    /// Takes note that an object comes back, `distance` evictions after its own; `objects` is how
    /// many are cached.
    pub(super) fn note_return(&mut self, last_use: Tick, now: Tick, distance: u64, objects: usize) {
        self.returns += 1;
        self.distances += distance;
        if distance * self.returns * 2 < self.distances {
            self.early += 1;
        }
        if self.is_start(last_use, now, objects) {
            // One that had fewer uses than there are objects had not begun where it seemed.
            if self.first_sign.wrapping_sub(self.start) as usize >= objects {
                self.previous = self.start;
                self.short = 0;
            } else {
                self.short += 1;
            }
            self.start = self.first_sign;
            self.signs = 0;
            self.judge(objects as u64);
            if self.short >= SHORT_MAX {
                self.believed = false;
            }
        }
    }

    /// Whether another pass has begun by now.
    fn is_start(&mut self, last_use: Tick, now: Tick, objects: usize) -> bool {
        if !is_since(last_use, self.start) {
            self.signs = self.signs.saturating_sub(1);
            return false;
        }
        let within = (objects / SIGNS_WITHIN_PART).max(SIGNS_WITHIN_MIN);
        if self.signs == 0 || now.wrapping_sub(self.first_sign) as usize > within {
            self.signs = 0;
            self.first_sign = now;
        }
        self.signs += SIGN;
        self.signs > (objects / SIGNS_PART).max(4) * SIGN
    }

    /// Passes are judged whole: at their start all that comes back comes early.
    fn judge(&mut self, objects: u64) {
        if self.returns < (objects / 4).max(RETURNS_MIN) {
            return;
        }
        let early_max = match self.believed {
            true => EARLY_MANY,
            false => EARLY_FEW,
        };
        self.believed = self.early * 100 <= self.returns * early_max;
        (self.returns, self.distances, self.early) = (0, 0, 0);
    }

    /// Returns when an object is due that was last used then.
    pub(super) fn due(&self, last_use: Tick) -> Due {
        if is_since(last_use, self.start) {
            return Due::Later;
        }
        match is_since(last_use, self.previous) {
            true => Due::Soon,
            false => Due::Never,
        }
    }
}

/// Time wraps: what seems to be far in the future was before.
fn is_since(tick: Tick, mark: Tick) -> bool {
    tick.wrapping_sub(mark) <= Tick::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_begins_where_what_it_had_comes_back() {
        let mut passes = Passes::new();
        for now in 1001..=1010 {
            passes.note_return(now - 1000, now, 900, 100);
        }
        assert_eq!((passes.previous, passes.start), (1, 1001));
        assert_eq!(passes.due(500), Due::Soon);
        assert_eq!(passes.due(1005), Due::Later);
        for now in 2001..=2010 {
            passes.note_return(now - 1000 + 10, now, 900, 100);
        }
        assert_eq!((passes.previous, passes.start), (1001, 2001));
        assert_eq!(passes.due(500), Due::Never);
    }

    #[test]
    fn a_few_that_come_back_by_themselves_begin_no_pass() {
        let mut passes = Passes::new();
        for now in 1001..=1010 {
            passes.note_return(now - 1000, now, 900, 100);
        }
        for now in 1011..2000 {
            let again = now % 20 == 0;
            passes.note_return(if again { now - 5 } else { now - 1005 }, now, 900, 100);
        }
        assert_eq!(passes.start, 1001);
    }

    #[test]
    fn many_early_returns_end_the_belief() {
        let mut passes = Passes::new();
        let pass = |passes: &mut Passes, number: Tick, distance: fn(u64) -> u64| {
            for n in 0..200 {
                let now = number * 1000 + n;
                passes.note_return(now - 1000, now, distance(u64::from(n)), 100);
            }
        };
        pass(&mut passes, 1, |n| 900 + n);
        pass(&mut passes, 2, |n| 900 + n);
        assert!(passes.are_believed());
        pass(&mut passes, 3, |n| if n % 2 == 0 { 10 } else { 1000 });
        pass(&mut passes, 4, |n| 900 + n);
        assert!(!passes.are_believed());
        pass(&mut passes, 5, |n| 900 + n);
        assert!(passes.are_believed());
    }

    #[test]
    fn passes_that_are_too_short_are_none() {
        let mut passes = Passes::new();
        for now in 1..100 {
            passes.note_return(now, now + 1, 10, 1000);
        }
        assert!(!passes.are_believed());
    }

    #[test]
    fn time_wraps() {
        let mut passes = Passes::new();
        (passes.previous, passes.start) = (Tick::MAX - 100, Tick::MAX - 10);
        assert_eq!(passes.due(5), Due::Later);
        assert_eq!(passes.due(Tick::MAX - 50), Due::Soon);
        assert_eq!(passes.due(Tick::MAX - 200), Due::Never);
    }
}
