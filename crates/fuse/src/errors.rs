// SPDX-License-Identifier: Apache-2.0
//! What went wrong lately, for the log and for `status`.
//!
//! The kernel door is where an error ends: the application gets a number and nothing else, so the
//! reason is kept here. Each kind is logged at most once a minute (a broken storage fails thousands
//! of reads a second), all are counted, and the latest few are kept whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use types::{Clock, Error, ErrorKind};

use crate::stats::Operation;

/// How many errors are kept whole: a screenful.
const KEPT_MAX: usize = 20;

/// The least time between two log lines of one kind.
const QUIET: Duration = Duration::from_secs(60);

/// An error that an application got.
#[derive(Debug, Clone)]
pub struct ErrorRecord {
    /// When it was answered.
    pub at: SystemTime,
    /// What the number told the application.
    pub kind: ErrorKind,
    /// The request that failed.
    pub operation: &'static str,
    /// The inode it was about; for a lookup, the directory.
    pub inode: u64,
    /// The whole reason.
    pub message: String,
}

/// Counts, logs and keeps errors.
#[derive(Debug)]
pub(crate) struct Errors {
    clock: Arc<dyn Clock>,
    /// Guards what is below; held for a few lines, and never while a log line is written.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    kinds: [PerKind; ErrorKind::ALL.len()],
    kept: VecDeque<ErrorRecord>,
}

#[derive(Debug, Default)]
struct PerKind {
    count: u64,
    /// When the last line was written, and how many were not written since.
    logged: Option<Instant>,
    silent: u64,
}

impl Errors {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Errors {
            clock,
            inner: Mutex::default(),
        }
    }

    /// Takes note of an error. An absent name is no error: programs ask for what is not there.
    pub(crate) fn record(&self, operation: Operation, inode: u64, error: &Error) {
        let kind = error.kind();
        if kind == ErrorKind::NotFound {
            return;
        }
        let message = error.to_string();
        if let Some(silent) = self.keep(operation, inode, kind, &message) {
            let operation = operation.name();
            let more = match silent {
                0 => String::new(),
                count => format!(" ({count} more like it since the last line)"),
            };
            tracing::warn!("{operation}: {message}{more}");
        }
    }

    /// Returns the counts of the kinds that occurred, and the latest errors, oldest first.
    pub(crate) fn snapshot(&self) -> (Vec<(ErrorKind, u64)>, Vec<ErrorRecord>) {
        let inner = self.inner.lock();
        let counts = ErrorKind::ALL
            .into_iter()
            .zip(inner.kinds.iter().map(|kind| kind.count));
        (
            counts.filter(|(_, count)| *count > 0).collect(),
            inner.kept.iter().cloned().collect(),
        )
    }

    /// Counts and keeps one; when it is to be logged, returns how many were not since the last line.
    fn keep(
        &self,
        operation: Operation,
        inode: u64,
        kind: ErrorKind,
        message: &str,
    ) -> Option<u64> {
        let (now, at) = (self.clock.now(), self.clock.wall());
        let mut inner = self.inner.lock();
        if inner.kept.len() == KEPT_MAX {
            inner.kept.pop_front();
        }
        let message = message.to_owned();
        let operation = operation.name();
        inner.kept.push_back(ErrorRecord {
            at,
            kind,
            operation,
            inode,
            message,
        });
        let per_kind = &mut inner.kinds[kind as usize];
        per_kind.count += 1;
        if per_kind
            .logged
            .is_some_and(|last| now.saturating_duration_since(last) < QUIET)
        {
            per_kind.silent += 1;
            return None;
        }
        per_kind.logged = Some(now);
        Some(std::mem::take(&mut per_kind.silent))
    }
}

#[cfg(test)]
mod tests {
    use types::ManualClock;

    use super::*;

    fn errors() -> (Arc<ManualClock>, Errors) {
        let clock = Arc::new(ManualClock::default());
        (Arc::clone(&clock), Errors::new(clock))
    }

    #[test]
    fn absent_names_are_no_errors() {
        let (_, errors) = errors();
        errors.record(
            Operation::Lookup,
            1,
            &Error::new(ErrorKind::NotFound, "no such object"),
        );
        let (counts, kept) = errors.snapshot();
        assert!(counts.is_empty() && kept.is_empty());
    }

    #[test]
    fn all_are_counted_and_only_the_latest_are_kept() {
        let (_, errors) = errors();
        for number in 0..50 {
            let error = Error::new(ErrorKind::Unavailable, format!("fault {number}"));
            errors.record(Operation::Read, number, &error);
        }
        errors.record(Operation::Open, 99, &Error::new(ErrorKind::Stale, "gone"));
        let (counts, kept) = errors.snapshot();
        assert_eq!(
            counts,
            [(ErrorKind::Stale, 1), (ErrorKind::Unavailable, 50)]
        );
        assert_eq!(kept.len(), KEPT_MAX);
        assert_eq!(kept[0].message, "fault 31");
        let last = &kept[KEPT_MAX - 1];
        assert_eq!(
            (last.operation, last.inode, last.kind),
            ("open", 99, ErrorKind::Stale)
        );
    }

    #[test]
    fn a_kind_is_logged_once_a_minute_with_the_number_left_out() {
        let (clock, errors) = errors();
        let keep = |kind| errors.keep(Operation::Read, 1, kind, "x");
        assert_eq!(keep(ErrorKind::Timeout), Some(0));
        assert_eq!(keep(ErrorKind::Timeout), None);
        assert_eq!(
            keep(ErrorKind::Stale),
            Some(0),
            "another kind has its own minute"
        );
        clock.advance(QUIET - Duration::from_secs(1));
        assert_eq!(keep(ErrorKind::Timeout), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(keep(ErrorKind::Timeout), Some(2));
        assert_eq!(keep(ErrorKind::Timeout), None);
    }
}
