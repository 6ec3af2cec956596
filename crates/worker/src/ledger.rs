// SPDX-License-Identifier: Apache-2.0
//! The metadata map as the rest of the worker may use it: reads at once, writes behind.
//!
//! A map whose disk cannot follow makes its writers wait, and a thread that answers requests must
//! not. So small changes are put into a queue that reads look through first, and a thread of its
//! own writes them. The queue is bounded: changes that find it full are lost, which costs a request
//! later. What cannot be read is told apart from what is not there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use cache::kv::Kv;
use parking_lot::{Condvar, Mutex};
use types::{Error, Result};

/// Changes in the queue: at about 200 bytes each, two MiB.
const QUEUE_MAX: usize = 10_000;

/// A write of many rows is cut into parts of about this size, so that the map can hold back its
/// writer in between.
const PART_BYTES: usize = 1 << 20;

type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A key and its new value; `None` deletes.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// The map, and the changes on their way to it.
#[derive(Debug)]
pub(crate) struct Ledger {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    map: Arc<Kv>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Changes,
    /// What the thread writes at the moment; older than what waits.
    writing: Arc<Changes>,
    /// Number of puts so far, and of those that are written, or lost to a fault.
    put: u64,
    done: u64,
    stop: bool,
}

impl Ledger {
    /// Starts the thread that writes.
    pub(crate) fn start(map: Arc<Kv>) -> Result<Self> {
        let shared = Arc::new(Shared {
            map,
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("names".into())
            .spawn(move || writer.work())
            .map_err(|error| Error::io("start the thread that writes names", error))?;
        Ok(Ledger {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Returns the value of a key; `None` when the map cannot be read.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let queue = self.shared.queue.lock();
        if let Some(value) = queue.waiting.get(key).or_else(|| queue.writing.get(key)) {
            return Some(value.clone());
        }
        drop(queue);
        match self.shared.map.get(key) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::debug!(%error, "the metadata map could not be read");
                None
            }
        }
    }

    /// Puts changes on their way.
    pub(crate) fn put(&self, changes: impl IntoIterator<Item = Change>) {
        let mut queue = self.shared.queue.lock();
        queue.put += 1;
        for (key, value) in changes {
            if queue.waiting.len() < QUEUE_MAX || queue.waiting.contains_key(&key) {
                queue.waiting.insert(key, value);
            }
        }
        self.shared.changed.notify_all();
    }

    /// Returns the rows of a range of keys, in order; `None` when they cannot be read, or when
    /// what was put before has not arrived after `patience`.
    pub(crate) fn scan(
        &self,
        (from, to): (&[u8], &[u8]),
        patience: Duration,
    ) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        if !self.arrived(patience) {
            return None;
        }
        self.shared.map.scan(from, to).ok()
    }

    /// Writes many rows, waiting for the disk as needed; says whether all were written. After a
    /// crash a part of them may be there.
    pub(crate) fn write_all(&self, rows: impl IntoIterator<Item = Change>) -> bool {
        let mut part = Vec::new();
        let mut bytes = 0;
        for (key, value) in rows {
            bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            part.push((key, value));
            if bytes >= PART_BYTES {
                bytes = 0;
                if !self.shared.write(std::mem::take(&mut part)) {
                    return false;
                }
            }
        }
        self.shared.write(part)
    }

    /// Waits until all that was put so far is written; says whether it was in time.
    pub(crate) fn arrived(&self, patience: Duration) -> bool {
        let mut queue = self.shared.queue.lock();
        let put = queue.put;
        let is_behind = |queue: &mut Queue| queue.done < put;
        let changed = &self.shared.changed;
        !changed
            .wait_while_for(&mut queue, is_behind, patience)
            .timed_out()
    }

    /// Writes what is on its way and ends the thread. What is put later is known for this run only.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().stop = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes names panicked");
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let mut queue = self.queue.lock();
            self.changed
                .wait_while(&mut queue, |queue| queue.waiting.is_empty() && !queue.stop);
            if queue.waiting.is_empty() {
                return;
            }
            let writing = Arc::new(std::mem::take(&mut queue.waiting));
            queue.writing = Arc::clone(&writing);
            let put = queue.put;
            drop(queue);
            self.write(
                writing
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect(),
            );
            let mut queue = self.queue.lock();
            queue.writing = Arc::default();
            queue.done = put;
            drop(queue);
            self.changed.notify_all();
        }
    }

    fn write(&self, rows: Vec<Change>) -> bool {
        match self.map.write(rows) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "the metadata map could not be written");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_was_put_is_seen_at_once_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Ledger::start(Kv::open(&dir.path().join("map"), 1 << 20).unwrap()).unwrap();
        let row = |key: u8, value: Option<&[u8]>| (vec![key], value.map(<[u8]>::to_vec));
        let ledger = open();
        for round in 0..100 {
            ledger.put([row(1, Some(&[round])), row(2, Some(&[round]))]);
            assert_eq!(ledger.get(&[1]), Some(Some(vec![round])));
            ledger.put([row(2, None)]);
            assert_eq!(ledger.get(&[2]), Some(None));
        }
        assert_eq!(
            ledger.scan((&[0], &[9]), LONG),
            Some(vec![(vec![1], vec![99])])
        );
        assert!(ledger.write_all((3..6).map(|key| row(key, Some(&[0; PART_BYTES])))));
        ledger.put([row(7, Some(b"last"))]);
        ledger.close();
        drop(ledger);
        let ledger = open();
        assert_eq!(ledger.get(&[7]), Some(Some(b"last".to_vec())));
        assert_eq!(
            ledger.scan((&[0], &[9]), LONG).map(|rows| rows.len()),
            Some(5)
        );
    }

    #[test]
    fn a_full_queue_loses_changes_and_holds_nobody_back() {
        let dir = tempfile::tempdir().unwrap();
        let map = Kv::open(&dir.path().join("map"), 1 << 20).unwrap();
        let ledger = Ledger::start(map).unwrap();
        // With its thread gone nothing leaves the queue.
        ledger.close();
        for key in 0..20_000_u32 {
            ledger.put([(key.to_be_bytes().to_vec(), Some(vec![1]))]);
        }
        assert_eq!(ledger.get(&5_u32.to_be_bytes()), Some(Some(vec![1])));
        assert_eq!(ledger.get(&15_000_u32.to_be_bytes()), Some(None));
        assert!(ledger.scan((&[0], &[9]), Duration::ZERO).is_none());
    }
}
