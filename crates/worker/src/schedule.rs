// SPDX-License-Identifier: Apache-2.0
//! Whose turn it is to send a request to a mount's storage.
//!
//! A bounded number of requests is under way; those that wait are served by class (demand,
//! readahead, neighbours, loads), and within a class in the order they came. Listings and stats do not queue here:
//! they are small, and a reader that opens a file must not wait behind its neighbours' data.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use types::{Deadline, Error, ErrorKind, Result};

use crate::progress::{Pulse, while_moving};

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

/// A bounded number of turns.
#[derive(Debug)]
pub(crate) struct Schedule {
    queue: Mutex<Queue>,
    /// Beats when a request under way brings something.
    pulse: Arc<Pulse>,
}

#[derive(Debug)]
struct Queue {
    free: usize,
    demand: VecDeque<oneshot::Sender<Turn>>,
    ahead: VecDeque<oneshot::Sender<Turn>>,
    neighbours: VecDeque<oneshot::Sender<Turn>>,
    loads: VecDeque<oneshot::Sender<Turn>>,
}

impl Queue {
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let guess = || {
            self.ahead
                .pop_front()
                .or_else(|| self.neighbours.pop_front())
                .or_else(|| self.loads.pop_front())
        };
        self.demand.pop_front().or_else(guess)
    }
}

/// The right to have one request under way; passes to the next in line when dropped.
#[derive(Debug)]
pub(crate) struct Turn(Option<Arc<Schedule>>);

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(schedule) = self.0.take() {
            schedule.hand_on();
        }
    }
}

impl Schedule {
    pub(crate) fn new(width: usize) -> Arc<Self> {
        let queue = Queue {
            free: width.max(1),
            demand: VecDeque::new(),
            ahead: VecDeque::new(),
            neighbours: VecDeque::new(),
            loads: VecDeque::new(),
        };
        Arc::new(Schedule {
            queue: Mutex::new(queue),
            pulse: Arc::default(),
        })
    }

    /// Returns what tells that the requests under way move.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Waits for a turn, for as long as the requests under way move. Dropping the future gives the place
    /// in the queue up.
    pub(crate) async fn turn(self: &Arc<Self>, class: Class, deadline: Deadline) -> Result<Turn> {
        let receiver = {
            let mut queue = self.queue.lock();
            if queue.free > 0 {
                queue.free -= 1;
                return Ok(Turn(Some(Arc::clone(self))));
            }
            let (sender, receiver) = oneshot::channel();
            match class {
                Class::Demand => queue.demand.push_back(sender),
                Class::Ahead => queue.ahead.push_back(sender),
                Class::Neighbour => queue.neighbours.push_back(sender),
                Class::Load => queue.loads.push_back(sender),
            }
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

    fn hand_on(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        while let Some(next) = queue.next() {
            match next.send(Turn(Some(Arc::clone(self)))) {
                Ok(()) => return,
                // The waiter gave up: its turn must not come back here through Drop.
                Err(mut refused) => refused.0 = None,
            }
        }
        queue.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Clock, SystemClock};

    #[tokio::test]
    async fn demand_overtakes_readahead_and_that_loads_and_quitters_are_skipped() {
        let schedule = Schedule::new(1);
        let deadline = SystemClock.deadline(std::time::Duration::from_secs(30));
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
        assert_eq!(schedule.queue.lock().free, 1);
    }
}
