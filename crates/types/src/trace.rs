// SPDX-License-Identifier: Apache-2.0
//! What the spans of all rooms have in common.
//!
//! A span is made where something waits: a request of the kernel, a fetch, a listing, a request to a
//! storage. It is a span of `tracing` at level TRACE with the target [`SPANS`], which nobody listens to
//! unless traces are sent somewhere: then it costs one look at the level, and a hit makes none. The
//! span of whoever waits is the current one while its future is polled, so that what is begun there is
//! its child; a task of its own takes it along (`Instrument`). Numbers are told as `i64`, the only whole
//! numbers that the protocol of traces knows.

use tracing::Span;

use crate::{Error, ErrorKind};

/// The target of all spans, by which they are told from the lines of the log.
pub const SPANS: &str = "forebay::spans";

/// Takes note in a span of why it failed. The span has the fields `error.type`, `otel.status_code` and
/// `otel.status_description`.
pub fn failed(span: &Span, error: &Error) {
    if span.is_disabled() {
        return;
    }
    span.record("error.type", tracing::field::debug(error.kind()));
    // Programs ask for what is not there.
    if error.kind() != ErrorKind::NotFound {
        span.record("otel.status_description", error.to_string());
    }
}

/// Takes note in a span of what came of it.
pub fn ended<T>(span: &Span, outcome: &crate::Result<T>) {
    if let Err(error) = outcome {
        failed(span, error);
    }
}
