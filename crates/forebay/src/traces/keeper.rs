// SPDX-License-Identifier: Apache-2.0
//! Which traces are sent: a part of all, chosen by their number, and each request of the kernel that
//! was slow or failed.
//!
//! Of what is not of that part, spans are kept until the request ends, which is when its fate is known.
//! Fates are remembered for a while, for spans that end after their request. All of it has bounds; what
//! goes beyond them is not sent, and was not going to be unless its request failed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanId, SpanKind, Status, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;

/// From here on people notice; the slow requests of `forebay status` begin here, too.
const SLOW: Duration = Duration::from_millis(500);

/// Traces whose spans or fates are kept: more than can wait for storages at a time.
const TRACES_MAX: usize = 1024;

/// Spans of a trace that are kept: a request of 1 MiB in pieces of the smallest kind has fewer.
const SPANS_MAX: usize = 64;

/// Chooses traces, and hands them to whoever sends them.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Traces whose number is below are sent.
    below: u128,
    queue: Sender<SpanData>,
    dropped: AtomicU64,
    /// Held for one look and a few pushes.
    waiting: Mutex<Waiting>,
}

/// A keeper, as the library calls it.
#[derive(Debug)]
pub(super) struct Door(pub(super) Arc<Keeper>);

/// Traces of which not all are sent.
#[derive(Debug, Default)]
struct Waiting {
    traces: HashMap<TraceId, Fate>,
    /// The same, oldest first.
    order: VecDeque<TraceId>,
}

/// What becomes of a trace.
#[derive(Debug)]
enum Fate {
    Open(Vec<SpanData>),
    Sent,
    Forgotten,
}

impl Keeper {
    /// Makes one that sends a part of all traces, from 0 to 1.
    pub(super) fn new(ratio: f64, queue: Sender<SpanData>) -> Keeper {
        let below = match ratio {
            ratio if ratio >= 1.0 => 1 << 64,
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a part of 2^64, rounded"
            )]
            ratio => (ratio.max(0.0) * 2f64.powi(64)) as u128,
        };
        Keeper {
            below,
            queue,
            dropped: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    /// Returns how many spans found the queue full.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn take(&self, span: SpanData) {
        let trace = span.span_context.trace_id();
        // Its lower half is random by the specification.
        let number = u128::from_be_bytes(trace.to_bytes()) & u128::from(u64::MAX);
        if number < self.below {
            return self.offer(span);
        }
        let is_root = span.parent_span_id == SpanId::INVALID;
        let sends = is_root && is_notable(&span);
        let released = self
            .waiting
            .lock()
            .take(trace, span, is_root.then_some(sends));
        for span in released {
            self.offer(span);
        }
    }

    fn offer(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Waiting {
    /// Keeps a span, and returns those that are to be sent now. The root decides.
    fn take(&mut self, trace: TraceId, span: SpanData, sends: Option<bool>) -> Vec<SpanData> {
        if !self.traces.contains_key(&trace) {
            if self.order.len() == TRACES_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.traces.remove(&oldest);
            }
            self.order.push_back(trace);
        }
        let fate = self.traces.entry(trace);
        let fate = fate.or_insert_with(|| Fate::Open(Vec::new()));
        match (&mut *fate, sends) {
            (Fate::Sent, _) => vec![span],
            (Fate::Forgotten, _) => Vec::new(),
            (Fate::Open(spans), None) => {
                if spans.len() < SPANS_MAX {
                    spans.push(span);
                }
                Vec::new()
            }
            (Fate::Open(spans), Some(true)) => {
                let mut spans = std::mem::take(spans);
                spans.push(span);
                *fate = Fate::Sent;
                spans
            }
            (Fate::Open(_), Some(false)) => {
                *fate = Fate::Forgotten;
                Vec::new()
            }
        }
    }
}

/// Returns whether a request of the kernel was slow or failed.
fn is_notable(root: &SpanData) -> bool {
    let took = root.end_time.duration_since(root.start_time);
    root.span_kind == SpanKind::Server
        && (matches!(root.status, Status::Error { .. }) || took.is_ok_and(|took| took >= SLOW))
}

impl SpanProcessor for Door {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.take(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{SpanContext, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use tokio::sync::mpsc::{self, Receiver};

    use super::*;

    fn keeper(ratio: f64, places: usize) -> (Keeper, Receiver<SpanData>) {
        let (sender, receiver) = mpsc::channel(places);
        (Keeper::new(ratio, sender), receiver)
    }

    /// A span of a trace, below a parent; the root has none.
    fn span(trace: u64, id: u64, parent: u64) -> SpanData {
        let trace = TraceId::from_bytes(u128::from(trace).to_be_bytes());
        let id = SpanId::from_bytes(id.to_be_bytes());
        let context = SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE);
        SpanData {
            span_context: context,
            parent_span_id: SpanId::from_bytes(parent.to_be_bytes()),
            parent_span_is_remote: false,
            span_kind: match parent {
                0 => SpanKind::Server,
                _ => SpanKind::Internal,
            },
            name: id.to_string().into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    fn sent(receiver: &mut Receiver<SpanData>) -> Vec<String> {
        let mut names = Vec::new();
        while let Ok(span) = receiver.try_recv() {
            names.push(span.name.trim_start_matches('0').to_owned());
        }
        names
    }

    #[test]
    fn whole_traces_are_chosen_by_their_number() {
        let (all, mut receiver) = keeper(1.0, 10);
        all.take(span(u64::MAX, 2, 1));
        all.take(span(u64::MAX, 1, 0));
        assert_eq!(sent(&mut receiver), ["2", "1"]);
        let (half, mut receiver) = keeper(0.5, 10);
        half.take(span(1 << 62, 1, 0));
        half.take(span(3 << 62, 2, 0));
        assert_eq!(sent(&mut receiver), ["1"]);
        let (none, mut receiver) = keeper(0.0, 10);
        none.take(span(0, 1, 0));
        assert!(sent(&mut receiver).is_empty());
    }

    #[test]
    fn a_request_that_is_slow_or_fails_is_sent_with_all_its_spans() {
        let (keeper, mut receiver) = keeper(0.0, 10);
        keeper.take(span(7, 2, 1));
        keeper.take(span(8, 9, 8));
        let mut failed = span(7, 1, 0);
        failed.status = Status::error("no");
        keeper.take(failed);
        keeper.take(span(7, 3, 1));
        assert_eq!(sent(&mut receiver), ["2", "1", "3"], "later ones, too");
        let mut slow = span(8, 8, 0);
        slow.end_time += SLOW;
        keeper.take(slow);
        assert_eq!(sent(&mut receiver), ["9", "8"]);
        keeper.take(span(10, 2, 1));
        keeper.take(span(10, 1, 0));
        keeper.take(span(10, 3, 1));
        assert!(sent(&mut receiver).is_empty());
        let mut ahead = span(11, 1, 0);
        ahead.span_kind = SpanKind::Internal;
        ahead.end_time += 2 * SLOW;
        keeper.take(ahead);
        assert!(sent(&mut receiver).is_empty(), "nobody waited for it");
    }

    #[test]
    fn everything_has_a_bound_and_what_finds_no_place_is_counted() {
        let (keeper, mut receiver) = keeper(0.0, SPANS_MAX);
        for id in 0..10_000 {
            keeper.take(span(5, id + 2, 1));
        }
        let mut failed = span(5, 1, 0);
        failed.status = Status::error("no");
        keeper.take(failed);
        assert_eq!(sent(&mut receiver).len(), SPANS_MAX);
        assert_eq!(keeper.dropped(), 1);
        for trace in 0..10_000 {
            keeper.take(span(trace, 2, 1));
        }
        let waiting = keeper.waiting.lock();
        assert_eq!(waiting.traces.len(), TRACES_MAX);
        assert_eq!(waiting.order.len(), TRACES_MAX);
    }
}
