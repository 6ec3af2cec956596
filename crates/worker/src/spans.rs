// SPDX-License-Identifier: Apache-2.0
//! The spans of what a worker waits for: fetches, fills, listings, looks, stores.
//!
//! What is done for a request is in its trace. What nobody waits for has traces of its own: fetches
//! and listings ahead, parts of loads, files that are stored later. Somebody who waits for a fetch
//! that is under way for another is linked to it.

use tracing::field::Empty;
use tracing::{Instrument, Span};
use types::trace::{self, SPANS};
use types::{ByteRange, ObjectPath, ObjectRef, Result};

use crate::schedule::Class;

/// A fetch of a range, from its place in the queue on.
pub(crate) fn fetch(object: &ObjectRef, range: ByteRange, class: Class) -> Span {
    tracing::trace_span!(
        target: SPANS,
        "fetch",
        object = %object.path,
        offset = range.offset.cast_signed(),
        length = range.len.cast_signed(),
        class = class.name(),
        bytes = Empty,
        queued_us = Empty,
        "error.type" = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// The request that is sent because another is late.
pub(crate) fn hedge() -> Span {
    tracing::trace_span!(
        target: SPANS,
        "hedge",
        hedged = true,
        "error.type" = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// Bytes on their way into the cache, from when they arrived.
pub(crate) fn fill(range: ByteRange) -> Span {
    tracing::trace_span!(
        target: SPANS,
        "fill",
        offset = range.offset.cast_signed(),
        length = range.len.cast_signed(),
        is_cached = Empty,
        "error.type" = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// Something that is done at a path of a storage: `list`, `look`, `store`, `load`.
pub(crate) fn at(what: &'static str, path: &ObjectPath) -> Span {
    tracing::trace_span!(
        target: SPANS,
        "work",
        otel.name = what,
        object = %path,
        names = Empty,
        bytes = Empty,
        "error.type" = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// Does something within a span, which tells what came of it.
pub(crate) async fn within<T>(span: Span, work: impl Future<Output = Result<T>>) -> Result<T> {
    let outcome = work.instrument(span.clone()).await;
    trace::ended(&span, &outcome);
    outcome
}
