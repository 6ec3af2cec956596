// SPDX-License-Identifier: Apache-2.0
//! What each request is about, from its start to its answer: for who watches, for what took long, and
//! for what was denied.
//!
//! A request says what it is about in a place of its thread ([`Accesses::begin`]). When it is answered
//! on that thread, the guard tells of it; when it has to wait, the task that answers it takes that
//! along ([`take`]) and tells of it then. While nobody watches, no clock is read and no line is made on
//! the way of a hit: what is left is a write to memory of the thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tracing::Span;
use tracing::field::Empty;
use types::trace::SPANS;
use types::{ByteRange, Clock, Error, ErrorKind};
use vfs::{Accessed, Ino, Vfs};

use crate::denials::{self, Denial, Denials, Denied};
use crate::stats::Operation;

/// From here on a request is a slow one: people notice.
const SLOW: Duration = Duration::from_millis(500);

/// Slow requests that are kept: a screenful.
const SLOW_KEPT_MAX: usize = 20;

thread_local! {
    /// The request that this thread answers.
    static NOW: RefCell<Option<Begun>> = const { RefCell::new(None) };
}

/// A request that took long.
#[derive(Debug, Clone)]
pub struct SlowRecord {
    /// When it was answered.
    pub at: SystemTime,
    /// The kind of request.
    pub operation: &'static str,
    /// The path in the tree that it was about.
    pub path: String,
    /// How long it took.
    pub waited: Duration,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// A request that has not been answered.
#[derive(Debug)]
pub(crate) struct Begun {
    operation: Operation,
    ino: u64,
    asker: u32,
    uid: u32,
    /// The name in the directory `ino` that it is about.
    name: Option<Box<[u8]>>,
    range: Option<ByteRange>,
    /// Only while somebody watches.
    began: Option<Instant>,
    fault: Option<ErrorKind>,
    /// Only if it was not allowed.
    denial: Option<Box<Denial>>,
}

/// Tells of requests.
#[derive(Debug)]
pub(crate) struct Accesses {
    vfs: Arc<Vfs>,
    clock: Arc<dyn Clock>,
    pub(crate) denials: Denials,
    /// Held for one push or one copy.
    slow: Mutex<VecDeque<SlowRecord>>,
}

/// Tells of a request when it is dropped, unless that was answered later.
pub(crate) struct Told<'a>(&'a Accesses);

impl Accesses {
    pub(crate) fn new(vfs: Arc<Vfs>, clock: Arc<dyn Clock>) -> Self {
        Accesses {
            vfs,
            denials: Denials::new(Arc::clone(&clock)),
            clock,
            slow: Mutex::default(),
        }
    }

    /// Returns whether somebody reads the access log.
    pub(crate) fn is_watched(&self) -> bool {
        self.vfs.access_log().is_watched()
    }

    /// Says what the request is about that this thread answers now.
    pub(crate) fn begin(
        &self,
        operation: Operation,
        ino: u64,
        (asker, uid): (u32, u32),
    ) -> Told<'_> {
        let begun = Begun {
            operation,
            ino,
            asker,
            uid,
            name: None,
            range: None,
            began: self.is_watched().then(|| self.clock.now()),
            fault: None,
            denial: None,
        };
        NOW.set(Some(begun));
        Told(self)
    }

    /// Returns the span of a request that has to wait; nobody listens to it unless traces are sent.
    pub(crate) fn span(&self, begun: Option<&Begun>) -> Span {
        let Some(begun) = begun else {
            return Span::none();
        };
        let span = tracing::trace_span!(
            target: SPANS,
            "request",
            otel.name = begun.operation.name(),
            otel.kind = "server",
            path = Empty,
            offset = Empty,
            length = Empty,
            user.id = i64::from(begun.uid),
            thread.id = i64::from(begun.asker),
            "error.type" = Empty,
            otel.status_code = Empty,
            otel.status_description = Empty,
        );
        // What follows takes locks and makes texts.
        if !span.is_disabled() {
            span.record("path", self.path_of(begun));
            if let Some(range) = begun.range {
                span.record("offset", range.offset.cast_signed());
                span.record("length", range.len.cast_signed());
            }
        }
        span
    }

    /// Tells of a request that was answered after a wait.
    pub(crate) fn answered_late(&self, begun: Begun, waited: Duration, error: Option<&Error>) {
        if waited >= SLOW {
            let mut slow = self.slow.lock();
            if slow.len() == SLOW_KEPT_MAX {
                slow.pop_front();
            }
            slow.push_back(SlowRecord {
                at: self.clock.wall(),
                operation: begun.operation.name(),
                path: self.path_of(&begun),
                waited,
                error: error.map(ToString::to_string),
            });
        }
        let denial = error.and_then(|error| denial(begun.operation, error));
        self.tell(Begun {
            fault: error.map(Error::kind),
            denial,
            ..begun
        });
    }

    /// Returns the latest slow requests, oldest first.
    pub(crate) fn slow(&self) -> Vec<SlowRecord> {
        self.slow.lock().iter().cloned().collect()
    }

    fn tell(&self, begun: Begun) {
        if let Some(denial) = &begun.denial {
            let denied = Denied {
                uid: begun.uid,
                thread: begun.asker,
                operation: denial.operation.unwrap_or(begun.operation.name()),
                path: self.path_of(&begun),
            };
            self.denials.note(denied, denial);
        }
        let Some(began) = begun.began.filter(|_| !vfs::is_virtual(Ino(begun.ino))) else {
            return;
        };
        self.vfs.access_log().tell(&Accessed {
            at: self.clock.wall(),
            operation: begun.operation.name(),
            path: self.path_of(&begun),
            range: begun.range,
            took: self.clock.now().saturating_duration_since(began),
            fault: begun.fault,
            asker: begun.asker,
        });
    }

    fn path_of(&self, begun: &Begun) -> String {
        let path = self.vfs.path_of(Ino(begun.ino));
        // The kernel may have let go of it while it waited.
        let path = path.unwrap_or_else(|| format!("inode {}", begun.ino));
        match &begun.name {
            Some(name) => {
                let name = String::from_utf8_lossy(name);
                format!("{}/{name}", path.trim_end_matches('/'))
            }
            None => path,
        }
    }
}

impl Told<'_> {
    /// Adds the name in the directory.
    pub(crate) fn name(self, name: &OsStr) -> Self {
        add(|begun| begun.name = Some(name.as_bytes().into()));
        self
    }

    /// Adds which bytes are meant.
    pub(crate) fn range(self, offset: u64, len: u64) -> Self {
        add(|begun| begun.range = Some(ByteRange::new(offset, len)));
        self
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if let Some(begun) = take() {
            self.0.tell(begun);
        }
    }
}

/// Takes over to tell of the request that this thread answers.
pub(crate) fn take() -> Option<Begun> {
    NOW.take()
}

/// Says that the request fails that this thread answers.
pub(crate) fn failed(error: &Error) {
    add(|begun| {
        begun.fault = Some(error.kind());
        begun.denial = denial(begun.operation, error);
    });
}

/// Says that the request is refused that this thread answers: with EPERM, as what cannot be.
pub(crate) fn refused(operation: &'static str, reason: &str) {
    let denial = Denial {
        errno: "EPERM",
        operation: Some(operation),
        reason: reason.to_owned(),
    };
    add(|begun| begun.denial = Some(Box::new(denial)));
}

fn denial(operation: Operation, error: &Error) -> Option<Box<Denial>> {
    let errno = denials::errno_of(operation, error.kind())?;
    Some(Box::new(Denial {
        errno,
        operation: None,
        reason: error.to_string(),
    }))
}

fn add(change: impl FnOnce(&mut Begun)) {
    NOW.with_borrow_mut(|now| now.as_mut().map(change));
}
