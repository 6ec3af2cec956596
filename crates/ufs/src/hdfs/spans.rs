// SPDX-License-Identifier: Apache-2.0
//! The span of each call, as far as it is made for somebody who has one.

use tracing::Span;
use tracing::field::{Empty, debug};
use types::ErrorKind;
use types::trace::SPANS;

use super::fault::Fault;

/// Makes the span of a call.
pub(super) fn call() -> Span {
    if Span::current().is_none() {
        return Span::none();
    }
    tracing::trace_span!(
        target: SPANS,
        "call",
        otel.kind = "client",
        rpc.system = "hdfs",
        "error.type" = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// Tells why it failed. That something does not exist is an answer.
pub(super) fn failed(span: &Span, fault: &Fault) {
    span.record("error.type", debug(fault.kind));
    if fault.kind != ErrorKind::NotFound {
        span.record("otel.status_description", fault.message.as_str());
    }
}
