// SPDX-License-Identifier: Apache-2.0
//! The thread of a store: tidies the directory after the open, then checks large objects on request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use types::{Error, Result, VersionId};

use super::Inner;

/// Objects waiting for their check; more are asked for again at their next open.
const CHECKS_MAX: usize = 256;

/// What the thread is to do.
#[derive(Debug, Default)]
pub(super) struct Queue {
    checks: Mutex<VecDeque<VersionId>>,
    wake: Condvar,
    stop: AtomicBool,
}

/// Stops the thread when dropped.
#[derive(Debug)]
pub(super) struct Background {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Queue {
    /// Has an object checked, if there is room in the queue.
    pub(super) fn ask_for_check(&self, id: VersionId) {
        let mut checks = self.checks.lock();
        if checks.len() < CHECKS_MAX && !checks.contains(&id) {
            checks.push_back(id);
            self.wake.notify_one();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits for an object; none when it is time to stop. It stays queued until it is done.
    fn next(&self) -> Option<VersionId> {
        let mut checks = self.checks.lock();
        loop {
            if self.is_stopped() {
                return None;
            }
            match checks.front() {
                Some(id) => return Some(*id),
                None => self.wake.wait(&mut checks),
            }
        }
    }

    fn done(&self) {
        self.checks.lock().pop_front();
    }
}

impl Background {
    pub(super) fn start(inner: &Arc<Inner>) -> Result<Background> {
        let work = Arc::clone(inner);
        let thread = std::thread::Builder::new()
            .name("cache-background".into())
            .spawn(move || {
                work.tidy(|| work.queue.is_stopped());
                while let Some(id) = work.queue.next() {
                    work.check_whole(id, || work.queue.is_stopped());
                    work.queue.done();
                }
            })
            .map_err(|e| Error::io("start the thread of the cache", e))?;
        Ok(Background {
            inner: Arc::clone(inner),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Stops the thread and waits for it. May be called again.
    pub(super) fn stop(&self) {
        let queue = &self.inner.queue;
        queue.stop.store(true, Ordering::Relaxed);
        // Under the lock, so that a thread about to wait does not miss it.
        drop(queue.checks.lock());
        queue.wake.notify_all();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the cache panicked");
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}
