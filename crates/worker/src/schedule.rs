// SPDX-License-Identifier: Apache-2.0
//! Whose turn it is to send a request to a mount's storage, and how many have one.
//!
//! A bounded number of requests is under way ([`width`] says how many pay); those that wait are served
//! by class (demand, readahead, neighbours, loads), and within a class in the order they came. Listings
//! and stats do not queue here: they are small, and a reader that opens a file must not wait behind its
//! neighbours' data. A request whose answer is late may be sent a second time ([`tail`]), with a turn of
//! its own that nobody waits for.

mod cap;
mod tail;
mod width;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use types::{Deadline, Error, ErrorKind, Result};

use crate::progress::{Pulse, while_moving};
use cap::Cap;
use tail::Tail;
use width::{Ended, Width};

pub use tail::Hedges;
pub use width::{Bounds, Changes};

/// Why a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A reader waits for it.
    Demand,
    /// A reader is expected to come to it next.
    Ahead,
    /// A job that reads the files around it is expected to come to it.
    Neighbour,
    /// Somebody wants it cached, and reads nothing of it now.
    Load,
}

impl Class {
    /// Returns the name in traces.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Class::Demand => "demand",
            Class::Ahead => "ahead",
            Class::Neighbour => "neighbour",
            Class::Load => "load",
        }
    }
}

/// The requests for data of one mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    /// How many may be under way now.
    pub width: u64,
    /// How many are.
    pub under_way: u64,
    /// How many wait for their turn: demand, readahead, neighbours, loads.
    pub waiting: [u64; 4],
    /// How the width was changed.
    pub changes: Changes,
    /// Requests that were sent a second time.
    pub hedges: Hedges,
    /// How long a cap of the bandwidth held requests back, together.
    pub held_back: Duration,
}

/// Tells how often a storage asked to slow down or left a request without an answer.
type Trouble = Box<dyn Fn() -> u64 + Send + Sync>;

/// A bounded number of turns.
pub(crate) struct Schedule {
    queue: Mutex<Queue>,
    tail: Mutex<Tail>,
    cap: Mutex<Cap>,
    /// Beats when a request under way brings something.
    pulse: Arc<Pulse>,
    trouble: Trouble,
}

#[derive(Debug)]
struct Queue {
    width: Width,
    under_way: usize,
    /// One for each class.
    waiting: [VecDeque<oneshot::Sender<Turn>>; 4],
}

/// The right to have one request under way; passes to the next in line when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    /// None when it was not taken.
    schedule: Option<Arc<Schedule>>,
    since: Instant,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(schedule) = self.schedule.take() {
            schedule.hand_on(self.since);
        }
    }
}

/// By the clock of the runtime's timers.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedule")
            .field("requests", &self.requests())
            .finish_non_exhaustive()
    }
}

impl Schedule {
    pub(crate) fn new(bounds: Bounds, trouble: Trouble) -> Arc<Self> {
        let queue = Queue {
            width: Width::new(bounds),
            under_way: 0,
            waiting: Default::default(),
        };
        Arc::new(Schedule {
            queue: Mutex::new(queue),
            tail: Mutex::default(),
            cap: Mutex::default(),
            pulse: Arc::default(),
            trouble,
        })
    }

    /// Returns what tells that the requests under way move.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Returns how many requests may be under way.
    pub(crate) fn width(&self) -> usize {
        self.queue.lock().width.now()
    }

    /// Returns how things stand.
    pub(crate) fn requests(&self) -> Requests {
        let queue = self.queue.lock();
        Requests {
            width: queue.width.now() as u64,
            under_way: queue.under_way as u64,
            waiting: [0, 1, 2, 3].map(|class| queue.waiting[class].len() as u64),
            changes: queue.width.changes(),
            hedges: self.tail.lock().hedges,
            held_back: self.cap.lock().held_back(),
        }
    }

    /// Caps the bytes a second; none takes the cap off.
    pub(crate) fn set_bandwidth(&self, bytes_per_second: Option<u64>) {
        self.cap.lock().set(bytes_per_second);
    }

    /// Waits after bytes that came until the bandwidth has room for more.
    pub(crate) async fn hold_back(&self, bytes: u64) {
        let until = self.cap.lock().took(now(), bytes);
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Takes note of how long an answer took to begin.
    pub(crate) fn answered(&self, took: Duration) {
        self.tail.lock().answered(took);
    }

    /// Returns after how long an answer is late.
    pub(crate) fn late_after(&self) -> Option<Duration> {
        self.tail.lock().late_after()
    }

    /// Takes note that the second answer came first.
    pub(crate) fn second_won(&self) {
        self.tail.lock().hedges.won += 1;
    }

    /// Returns a turn for a second request for what is late already, where there is one to spare.
    pub(crate) fn second(self: &Arc<Self>) -> Option<Turn> {
        let mut queue = self.queue.lock();
        let is_free = queue.under_way < queue.width.now();
        if !self.tail.lock().may_send(is_free) {
            return None;
        }
        queue.under_way += 1;
        Some(self.turn_now())
    }

    /// Waits for a turn, for as long as the requests under way move. Dropping the future gives the place
    /// in the queue up.
    pub(crate) async fn turn(self: &Arc<Self>, class: Class, deadline: Deadline) -> Result<Turn> {
        let receiver = {
            let mut queue = self.queue.lock();
            if queue.under_way < queue.width.now() {
                queue.under_way += 1;
                return Ok(self.turn_now());
            }
            let (sender, receiver) = oneshot::channel();
            queue.waiting[class as usize].push_back(sender);
            receiver
        };
        match while_moving(deadline, || self.pulse.last(), receiver).await {
            Some(Ok(turn)) => Ok(turn),
            Some(Err(_)) => Err(Error::internal("the fetch scheduler dropped a waiter")),
            None => {
                let span = deadline.span();
                let message = format!("queued for a storage that did not move for {span:?}");
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    }

    fn turn_now(self: &Arc<Self>) -> Turn {
        Turn {
            schedule: Some(Arc::clone(self)),
            since: now(),
        }
    }

    fn hand_on(self: &Arc<Self>, since: Instant) {
        let now = now();
        let mut queue = self.queue.lock();
        let end = Ended {
            bytes: self.pulse.total(),
            held: now.saturating_duration_since(since),
            under_way: queue.under_way,
            trouble: (self.trouble)(),
        };
        queue.width.ended(now, &end);
        queue.under_way -= 1;
        while queue.under_way < queue.width.now()
            && let Some(next) = queue.waiting.iter_mut().find_map(VecDeque::pop_front)
        {
            match next.send(self.turn_now()) {
                Ok(()) => queue.under_way += 1,
                // The waiter gave up: its turn must not come back here through Drop.
                Err(mut refused) => refused.schedule = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Clock, SystemClock};

    fn schedule(bounds: Bounds) -> Arc<Schedule> {
        Schedule::new(bounds, Box::new(|| 0))
    }

    fn soon() -> Deadline {
        SystemClock.deadline(Duration::from_secs(30))
    }

    #[tokio::test]
    async fn demand_overtakes_readahead_and_that_loads_and_quitters_are_skipped() {
        let schedule = schedule(Bounds::fixed(1));
        let deadline = soon();
        let first = schedule.turn(Class::Demand, deadline).await.unwrap();
        let mut load = Box::pin(schedule.turn(Class::Load, deadline));
        let mut ahead = Box::pin(schedule.turn(Class::Ahead, deadline));
        let mut quitter = Box::pin(schedule.turn(Class::Demand, deadline));
        let mut demand = Box::pin(schedule.turn(Class::Demand, deadline));
        assert!(futures::poll!(&mut load).is_pending());
        assert!(futures::poll!(&mut ahead).is_pending());
        assert!(futures::poll!(&mut quitter).is_pending());
        assert!(futures::poll!(&mut demand).is_pending());
        drop(quitter);
        drop(first);
        let turn = demand.await.unwrap();
        assert!(futures::poll!(&mut ahead).is_pending());
        drop(turn);
        let turn = ahead.await.unwrap();
        assert!(futures::poll!(&mut load).is_pending());
        drop(turn);
        drop(load.await.unwrap());
        let requests = schedule.requests();
        assert_eq!((requests.under_way, requests.waiting), (0, [0; 4]));
    }

    #[tokio::test]
    async fn who_took_a_turn_and_went_away_passes_it_on() {
        let schedule = schedule(Bounds::fixed(1));
        let first = schedule.turn(Class::Demand, soon()).await.unwrap();
        let mut gone = Box::pin(schedule.turn(Class::Demand, soon()));
        let mut next = Box::pin(schedule.turn(Class::Demand, soon()));
        assert!(futures::poll!(&mut gone).is_pending());
        assert!(futures::poll!(&mut next).is_pending());
        drop(first);
        // It was given its turn and never looked.
        drop(gone);
        drop(next.await.unwrap());
        assert_eq!(schedule.requests().under_way, 0);
    }

    #[tokio::test]
    async fn a_second_request_takes_a_turn_that_nobody_needs() {
        let schedule = schedule(Bounds::fixed(2));
        for _ in 0..500 {
            schedule.answered(Duration::from_millis(1));
        }
        let first = schedule.turn(Class::Demand, soon()).await.unwrap();
        let second = schedule.second().unwrap();
        assert!(schedule.second().is_none(), "all turns are taken");
        drop((first, second));
        let hedges = schedule.requests().hedges;
        assert_eq!((hedges.sent, hedges.refused), (1, 1));
    }
}
