// SPDX-License-Identifier: Apache-2.0
//! The table of this door: each kind of error as a word in JSON and as an HTTP status.
//!
//! No wildcard arm: a new kind must choose its row.

use hyper::StatusCode;
use types::{Error, ErrorKind};

use crate::wire::{Failure, Fault};

/// Returns the HTTP status and the JSON word of a kind.
pub fn row(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        ErrorKind::AlreadyExists => (StatusCode::CONFLICT, "already_exists"),
        ErrorKind::NotADirectory => (StatusCode::BAD_REQUEST, "not_a_directory"),
        ErrorKind::IsADirectory => (StatusCode::BAD_REQUEST, "is_a_directory"),
        ErrorKind::NotEmpty => (StatusCode::CONFLICT, "not_empty"),
        ErrorKind::PermissionDenied => (StatusCode::FORBIDDEN, "permission_denied"),
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
        ErrorKind::TooLong => (StatusCode::BAD_REQUEST, "too_long"),
        ErrorKind::Unsupported => (StatusCode::NOT_IMPLEMENTED, "unsupported"),
        ErrorKind::ReadOnly => (StatusCode::FORBIDDEN, "read_only"),
        ErrorKind::CrossMount => (StatusCode::BAD_REQUEST, "cross_mount"),
        ErrorKind::Stale => (StatusCode::PRECONDITION_FAILED, "stale"),
        ErrorKind::Busy => (StatusCode::CONFLICT, "busy"),
        ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        ErrorKind::OutOfSpace => (StatusCode::INSUFFICIENT_STORAGE, "out_of_space"),
        ErrorKind::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, "corrupt"),
        ErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

/// Returns the kind that a word of the table stands for; `Internal` for a word of a later version.
pub fn kind_of(word: &str) -> ErrorKind {
    ErrorKind::ALL
        .into_iter()
        .find(|kind| row(*kind).1 == word)
        .unwrap_or(ErrorKind::Internal)
}

/// Returns the status and body that answer with `error`.
pub fn answer(error: &Error) -> (StatusCode, Failure) {
    let (status, word) = row(error.kind());
    (
        status,
        Failure {
            error: Fault {
                kind: word.to_owned(),
                message: error.to_string(),
            },
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_word_and_a_status_that_is_an_error() {
        let mut words: Vec<_> = ErrorKind::ALL.iter().map(|kind| row(*kind).1).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            let (status, word) = row(kind);
            assert!(
                status.is_client_error() || status.is_server_error(),
                "{kind:?}"
            );
            assert_eq!(kind_of(word), kind);
        }
        assert_eq!(kind_of("a word of next year"), ErrorKind::Internal);
    }

    #[test]
    fn statuses_tell_whose_fault_it_is() {
        let status = |kind| row(kind).0.as_u16();
        assert_eq!(status(ErrorKind::Invalid), 400);
        assert_eq!(status(ErrorKind::PermissionDenied), 403);
        assert_eq!(status(ErrorKind::NotFound), 404);
        assert_eq!(status(ErrorKind::Busy), 409);
        assert_eq!(status(ErrorKind::Internal), 500);
        assert_eq!(status(ErrorKind::Unavailable), 503);
    }
}
