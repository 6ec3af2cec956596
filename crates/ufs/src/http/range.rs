// SPDX-License-Identifier: Apache-2.0
//! Whether an answer holds exactly the bytes that were asked.
//!
//! Pure functions over headers. A storage that does not know ranges may answer with the whole
//! object, which is fine if that is what was asked for, or if the driver can skip to its part.

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, StatusCode};

use super::Outcome;
use super::fault::Fault;

/// Returns the first and last byte that a request asks for.
pub(super) fn range_asked(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (first, last) = headers
        .get(RANGE)?
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Returns the first byte, the last one, and the whole length that an answer tells.
fn range_given(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim();
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (
        first.trim().parse().ok()?,
        last.trim().parse().ok()?,
        size.trim().parse().ok()?,
    );
    (first <= last && last < size).then_some((first, last, size))
}

/// Returns the length of the whole object, of which the answer may hold a part.
pub(crate) fn whole_length(headers: &HeaderMap) -> Option<u64> {
    match headers.contains_key(CONTENT_RANGE) {
        true => range_given(headers).map(|(_, _, size)| size),
        false => body_length(headers),
    }
}

fn body_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Checks that an answer to a ranged GET holds exactly the asked bytes, or, if that is allowed, the
/// whole object.
pub(super) fn check_range(
    asked: (u64, u64),
    status: StatusCode,
    headers: &HeaderMap,
    or_whole: bool,
) -> Outcome<()> {
    let (first, last) = asked;
    let length = body_length(headers);
    let wanted = last - first + 1;
    if status == StatusCode::PARTIAL_CONTENT {
        let given = range_given(headers).ok_or_else(|| {
            let text = format!("{:?}", headers.get(CONTENT_RANGE));
            Fault::WrongAnswer(format!("a part without a readable Content-Range: {text}"))
        })?;
        let (from, to, size) = given;
        if size <= last {
            // Only bytes that are in the object are asked for.
            return Err(Fault::Stale(format!(
                "the object changed: it has {size} bytes now"
            )));
        }
        if (from, to) != asked {
            return Err(Fault::WrongAnswer(format!(
                "bytes {from} to {to} when {first} to {last} were asked"
            )));
        }
    } else if or_whole {
        return Ok(());
    } else if first != 0 || length.is_some_and(|length: u64| length != wanted) {
        return Err(Fault::Unfit(format!(
            "the storage ignored the range: it answered {status} to bytes {first} to {last}"
        )));
    }
    match length {
        Some(length) if length != wanted => Err(Fault::WrongAnswer(format!(
            "{length} bytes when {wanted} were asked"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(range: Option<&str>, length: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(range) = range {
            headers.insert(CONTENT_RANGE, range.parse().unwrap());
        }
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, length.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_exactly_the_asked_range_passes() {
        let check = |status: u16, range, length| {
            let status = StatusCode::from_u16(status).unwrap();
            check_range((10, 19), status, &headers(range, length), false)
        };
        assert_eq!(check(206, Some("bytes 10-19/100"), Some("10")), Ok(()));
        assert_eq!(check(206, Some("bytes 10-19/100"), None), Ok(()));
        for (range, length) in [
            (Some("bytes 10-18/100"), Some("9")),
            (Some("bytes 11-20/100"), Some("10")),
            (Some("bytes 10-19/100"), Some("11")),
            (Some("bytes 10-19/*"), Some("10")),
            (Some("bytes 10-19/12"), Some("10")),
            (Some("bytes 12-19/20"), Some("8")),
            (Some("lines 10-19/100"), Some("10")),
            (None, Some("10")),
        ] {
            let answer = check(206, range, length);
            assert!(
                matches!(answer, Err(Fault::WrongAnswer(_))),
                "{range:?} {length:?}"
            );
        }
        let shorter = check(206, Some("bytes 10-14/15"), Some("5"));
        assert!(matches!(shorter, Err(Fault::Stale(_))), "{shorter:?}");
        assert!(matches!(
            check(200, None, Some("100")),
            Err(Fault::Unfit(_))
        ));
        assert!(matches!(check(200, None, Some("10")), Err(Fault::Unfit(_))));
    }

    #[test]
    fn a_whole_object_may_come_without_a_range() {
        let check =
            |length, any| check_range((0, 9), StatusCode::OK, &headers(None, Some(length)), any);
        assert_eq!(check("10", false), Ok(()));
        assert!(matches!(check("100", false), Err(Fault::Unfit(_))));
        assert_eq!(check("100", true), Ok(()));
    }
}
