// SPDX-License-Identifier: Apache-2.0
//! The span of each request, in the words of OpenTelemetry's conventions for HTTP.
//!
//! Only of requests that are sent for somebody who has a span: what nobody traces is not told. The
//! query of an address stays out, because it may hold a signature. The span of an answer with a body
//! lasts until that was read or given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::RANGE;
use http::request::Parts;
use tracing::Span;
use tracing::field::Empty;
use types::trace::SPANS;

use super::fault::Fault;
use crate::retry;

/// What is left of a request while the body of its answer is read.
#[derive(Debug, Clone)]
struct Answering(Arc<Answer>);

#[derive(Debug)]
struct Answer {
    span: Span,
    bytes: AtomicU64,
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A span ends when it was left last.
        self.span.in_scope(|| {
            let bytes = self.bytes.load(Ordering::Relaxed);
            self.span
                .record("http.response.body.size", bytes.cast_signed());
        });
    }
}

/// Makes the span of a request that carries so many bytes.
pub(super) fn request(parts: &Parts, len: u64) -> Span {
    if Span::current().is_none() {
        return Span::none();
    }
    let range = parts
        .headers
        .get(RANGE)
        .and_then(|range| range.to_str().ok());
    tracing::trace_span!(
        target: SPANS,
        "http",
        otel.name = parts.method.as_str(),
        otel.kind = "client",
        http.request.method = parts.method.as_str(),
        http.request.header.range = range,
        http.request.body.size = len.cast_signed(),
        http.request.resend_count = i64::from(retry::failures_before()),
        http.response.status_code = Empty,
        http.response.body.size = Empty,
        server.address = parts.uri.host(),
        server.port = parts.uri.port_u16().map(i64::from),
        url.path = parts.uri.path(),
        "error.type" = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// Tells of an answer, and keeps the span for as long as it is read.
pub(super) fn answered(span: Span, answer: &mut reqwest::Response) {
    if span.is_disabled() {
        return;
    }
    span.record(
        "http.response.status_code",
        i64::from(answer.status().as_u16()),
    );
    let bytes = AtomicU64::new(0);
    answer
        .extensions_mut()
        .insert(Answering(Arc::new(Answer { span, bytes })));
}

/// Tells that bytes of an answer came.
pub(super) fn came(answer: &mut reqwest::Response, bytes: usize) {
    if let Some(Answering(answer)) = answer.extensions_mut().get_mut() {
        answer.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Tells why a request failed. That something does not exist is an answer.
pub(super) fn failed(span: &Span, fault: &Fault) {
    if span.is_disabled() {
        return;
    }
    if let Fault::Refused(refusal) = fault {
        span.record("http.response.status_code", i64::from(refusal.status));
    }
    if !fault.absent() {
        span.record("error.type", fault.name());
        span.record("otel.status_description", fault.to_string());
    }
}

/// Tells why the body of an answer broke off.
pub(super) fn broke(answer: &mut reqwest::Response, fault: &Fault) {
    if let Some(Answering(answer)) = answer.extensions_mut().get_mut() {
        failed(&answer.span, fault);
    }
}
