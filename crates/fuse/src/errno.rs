// SPDX-License-Identifier: Apache-2.0
//! The one table from error kinds to error numbers.
//!
//! A number tells the application what it can do, as the kind told us. Storage trouble that no
//! number describes is EIO; the reason is in the log, in the statistics of the session and in the
//! extended attribute `user.forebay.error`.

use types::ErrorKind;

/// Returns the error number for a kind.
pub(crate) fn of(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::AlreadyExists => libc::EEXIST,
        ErrorKind::NotADirectory => libc::ENOTDIR,
        ErrorKind::IsADirectory => libc::EISDIR,
        ErrorKind::NotEmpty => libc::ENOTEMPTY,
        ErrorKind::PermissionDenied => libc::EACCES,
        ErrorKind::Invalid => libc::EINVAL,
        ErrorKind::TooLong => libc::ENAMETOOLONG,
        ErrorKind::Unsupported => libc::EOPNOTSUPP,
        ErrorKind::ReadOnly => libc::EROFS,
        ErrorKind::CrossMount => libc::EXDEV,
        ErrorKind::Stale => libc::ESTALE,
        // Not EAGAIN: to a reader of a regular file that means "would block", which never ends.
        ErrorKind::Busy => libc::EBUSY,
        ErrorKind::Unavailable => libc::EIO,
        ErrorKind::OutOfSpace => libc::ENOSPC,
        ErrorKind::Corrupt => libc::EIO,
        ErrorKind::Timeout => libc::ETIMEDOUT,
        ErrorKind::Internal => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_number_that_users_were_promised() {
        let promised = [
            (ErrorKind::NotFound, 2),
            (ErrorKind::AlreadyExists, 17),
            (ErrorKind::NotADirectory, 20),
            (ErrorKind::IsADirectory, 21),
            (ErrorKind::NotEmpty, 39),
            (ErrorKind::PermissionDenied, 13),
            (ErrorKind::Invalid, 22),
            (ErrorKind::TooLong, 36),
            (ErrorKind::Unsupported, 95),
            (ErrorKind::ReadOnly, 30),
            (ErrorKind::CrossMount, 18),
            (ErrorKind::Stale, 116),
            (ErrorKind::Busy, 16),
            (ErrorKind::Unavailable, 5),
            (ErrorKind::OutOfSpace, 28),
            (ErrorKind::Corrupt, 5),
            (ErrorKind::Timeout, 110),
            (ErrorKind::Internal, 5),
        ];
        assert_eq!(
            promised.map(|(kind, _)| kind),
            ErrorKind::ALL,
            "one line for each kind"
        );
        for (kind, number) in promised {
            assert_eq!(of(kind), number, "{kind:?}");
        }
    }

    #[test]
    fn absence_is_answered_only_for_what_the_storage_said_is_absent() {
        let absent: Vec<ErrorKind> = ErrorKind::ALL
            .into_iter()
            .filter(|kind| of(*kind) == libc::ENOENT)
            .collect();
        assert_eq!(absent, [ErrorKind::NotFound]);
    }
}
