// SPDX-License-Identifier: Apache-2.0
//! Which processes write through which handle.
//!
//! The kernel sends FLUSH for every descriptor that is closed, also for the copies that a fork leaves
//! in a child which never writes: storing the file at each of those would store it half-written, and
//! make a program wait that only starts another one. So a FLUSH counts when it comes from a process
//! that opened the file through this handle or wrote through it. What is dirty when the last
//! descriptor is closed is stored in any case.
//!
//! One leaf lock, held for a map operation.

use std::collections::HashMap;
use std::fs;

use parking_lot::Mutex;

/// A thread, and the process that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct User {
    thread: u32,
    process: u32,
}

/// The processes that write, by handle.
#[derive(Debug, Default)]
pub(crate) struct Writers(Mutex<HashMap<u64, Vec<User>>>);

/// Processes remembered of one handle; with more of them, each FLUSH counts.
const USERS_MAX: usize = 16;

impl Writers {
    /// Takes note that a thread opened a handle, or writes through it.
    pub(crate) fn used(&self, handle: u64, thread: u32) {
        let is_known = |users: &Vec<User>| users.iter().any(|user| user.thread == thread);
        if self.0.lock().get(&handle).is_some_and(is_known) {
            return;
        }
        let process = process_of(thread).unwrap_or(0);
        let mut handles = self.0.lock();
        let users = handles.entry(handle).or_default();
        if users.len() <= USERS_MAX {
            users.push(User { thread, process });
        }
    }

    /// Returns whether a FLUSH by this thread is the close of a writer.
    pub(crate) fn is_close(&self, handle: u64, thread: u32) -> bool {
        let is_known = |users: &Vec<User>| users.iter().any(|user| user.thread == thread);
        if self.0.lock().get(&handle).is_some_and(is_known) {
            return true;
        }
        let Some(process) = process_of(thread) else {
            return true;
        };
        let handles = self.0.lock();
        handles.get(&handle).is_none_or(|users| {
            let counts = |user: &User| user.process == process || user.process == 0;
            users.len() > USERS_MAX || users.iter().any(counts)
        })
    }

    /// Forgets a handle.
    pub(crate) fn released(&self, handle: u64) {
        self.0.lock().remove(&handle);
    }
}

/// Returns the process of a thread; none when it cannot be seen from here.
pub(crate) fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_opened_or_wrote_closes() {
        let writers = Writers::default();
        let (own, other) = (std::process::id(), 1);
        assert_eq!(process_of(own), Some(own));
        assert!(writers.is_close(7, other), "nothing is known of the handle");
        writers.used(7, own);
        writers.used(7, own);
        assert!(writers.is_close(7, own));
        assert!(!writers.is_close(7, other));
        assert!(writers.is_close(7, u32::MAX), "not to be seen from here");
        writers.released(7);
        assert!(writers.is_close(7, other));
    }
}
