// SPDX-License-Identifier: Apache-2.0
//! Uploads whose outcome is not known, and uploads that are not wanted any more.
//!
//! When the answer to the last request of an upload is lost, the storage may have the object or not.
//! What was sent is remembered by its checksums, so that the object, if it is there, is known as
//! one's own and not taken for somebody else's, also after the file was written on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use types::{ByteRange, Error, ErrorKind, Result};

/// Outcomes that are kept; of more, the oldest is forgotten.
const KEPT_MAX: usize = 8;

/// What was sent: the length, the size of a piece, and the checksums of all pieces in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub(crate) len: u64,
    pub(crate) piece: u64,
    pub(crate) sums: Vec<Sum>,
}

/// The checksums of some bytes: 96 bits against accidents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sum(u64, u64);

impl Sum {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let sum = |algorithm| crc_fast::checksum(algorithm, bytes);
        Sum(sum(CrcAlgorithm::Crc64Nvme), sum(CrcAlgorithm::Crc32Iscsi))
    }
}

impl Attempt {
    /// What is sent with one request.
    pub(crate) fn whole(bytes: &Bytes) -> Self {
        Attempt {
            len: bytes.len() as u64,
            piece: (bytes.len() as u64).max(1),
            sums: match bytes.is_empty() {
                true => Vec::new(),
                false => vec![Sum::of(bytes)],
            },
        }
    }

    /// Returns the pieces as ranges.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (ByteRange, Sum)> {
        let starts = (0..).map(|index: u64| index * self.piece);
        starts.zip(&self.sums).map(|(at, sum)| {
            let len = self.piece.min(self.len - at);
            (ByteRange::new(at, len), *sum)
        })
    }
}

/// The uploads of one file.
#[derive(Debug, Default)]
pub struct Attempts {
    open: Mutex<Vec<Attempt>>,
    /// A former run may have sent something.
    from_before: AtomicBool,
    /// How often somebody asked for a halt.
    halts: AtomicUsize,
    /// How many wait for the upload to end.
    halting: AtomicUsize,
    halted: Notify,
}

impl Attempts {
    /// Returns whether the storage may have something of this file that nobody took note of.
    pub fn has_open(&self) -> bool {
        self.from_before.load(Ordering::SeqCst) || !self.open.lock().is_empty()
    }

    /// Takes note that a former run may have sent something, which is not known or one of these.
    pub fn begun_before(&self, known: Vec<Attempt>) {
        self.from_before.store(true, Ordering::SeqCst);
        *self.open.lock() = known;
    }

    /// Forgets all: what the storage has is known.
    pub fn close(&self) {
        self.from_before.store(false, Ordering::SeqCst);
        self.open.lock().clear();
    }

    /// Returns what was sent and has no outcome yet.
    pub fn open(&self) -> Vec<Attempt> {
        self.open.lock().clone()
    }

    /// Takes note of what is sent from now on.
    pub(crate) fn begin(&self, attempt: Attempt) {
        let mut open = self.open.lock();
        open.retain(|known| *known != attempt);
        if open.len() >= KEPT_MAX {
            open.remove(0);
        }
        open.push(attempt);
    }

    /// Takes note of the outcome, if it is one.
    pub(crate) fn end<T>(&self, outcome: &Result<T>) {
        match outcome {
            Ok(_) => self.close(),
            Err(error) if is_refusal(error) => {
                self.open.lock().pop();
            }
            Err(_) => {}
        }
    }

    /// Asks an upload that is under way to end before its last request, for as long as the answer is
    /// kept.
    pub fn halt(&self) -> Halt<'_> {
        self.halts.fetch_add(1, Ordering::SeqCst);
        self.halting.fetch_add(1, Ordering::SeqCst);
        self.halted.notify_waiters();
        Halt(self)
    }

    /// Returns how often somebody asked for a halt so far.
    pub fn halts(&self) -> usize {
        self.halts.load(Ordering::SeqCst)
    }

    /// Returns whether somebody asks for a halt now.
    pub(crate) fn is_halting(&self) -> bool {
        self.halting.load(Ordering::SeqCst) > 0
    }

    /// Resolves when somebody asks for a halt.
    pub(crate) async fn halted(&self) {
        loop {
            let halted = self.halted.notified();
            if self.is_halting() {
                return;
            }
            halted.await;
        }
    }
}

/// Keeps uploads from going on; see [`Attempts::halt`].
#[derive(Debug)]
pub struct Halt<'a>(&'a Attempts);

impl Drop for Halt<'_> {
    fn drop(&mut self) {
        self.0.halting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Says whether a storage that answers so has certainly not taken what was sent.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::Invalid
            | ErrorKind::Unsupported
            | ErrorKind::ReadOnly
            | ErrorKind::OutOfSpace
            | ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_open_until_its_outcome_is_known() {
        let attempts = Attempts::default();
        let fails = |kind| Err::<(), _>(Error::new(kind, "no"));
        attempts.begin(Attempt::whole(&Bytes::from_static(b"one")));
        attempts.end(&fails(ErrorKind::Timeout));
        attempts.begin(Attempt::whole(&Bytes::from_static(b"two")));
        attempts.end(&fails(ErrorKind::PermissionDenied));
        assert_eq!(
            attempts.open(),
            [Attempt::whole(&Bytes::from_static(b"one"))]
        );
        attempts.begin(Attempt::whole(&Bytes::from_static(b"three")));
        attempts.end(&Ok(()));
        assert!(!attempts.has_open());
        for byte in 0..20_u8 {
            attempts.begin(Attempt::whole(&Bytes::copy_from_slice(&[byte])));
        }
        assert_eq!(attempts.open().len(), KEPT_MAX);
    }

    #[test]
    fn pieces_cover_what_was_sent() {
        let attempt = Attempt {
            len: 25,
            piece: 10,
            sums: vec![Sum::of(b"a"), Sum::of(b"b"), Sum::of(b"c")],
        };
        let lens: Vec<_> = attempt.pieces().map(|(range, _)| range.len).collect();
        assert_eq!(lens, [10, 10, 5]);
        assert_ne!(Sum::of(b"a"), Sum::of(b"b"));
        assert_eq!(Attempt::whole(&Bytes::new()).pieces().count(), 0);
    }
}
