// SPDX-License-Identifier: Apache-2.0
//! An S3 storage that fails and lies, in its own codes and pages: never a wrong byte, and errors
//! that say what is wrong. What all storages over HTTP have in common is in `faults`.

use std::time::Duration;

use futures::StreamExt;
use types::{ByteRange, Clock, ErrorKind, NodeKind, ObjectPath, Result, SystemClock};
use ufs::UnderStorage;
use ufs::conformance::{list, read, stat};

use crate::liar::{End, Liar, Told, honest, refused, told, v1};

const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

fn whole() -> ByteRange {
    ByteRange::new(0, CONTENT.len() as u64)
}

/// Reads with little time; returns what came before the end and the end.
async fn read_briefly(storage: &dyn UnderStorage, range: ByteRange) -> (Vec<u8>, Result<()>) {
    let deadline = SystemClock.deadline(Duration::from_millis(400));
    let path = ObjectPath::parse(b"k").unwrap();
    let mut bytes = Vec::new();
    let mut stream = match storage
        .read(&path, &v1(CONTENT.len()), range, deadline)
        .await
    {
        Ok(stream) => stream,
        Err(error) => return (bytes, Err(error)),
    };
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => return (bytes, Err(error)),
        }
    }
    (bytes, Ok(()))
}

/// Sends the head and only so many bytes of the body.
fn broken(mut told: Told, missing: usize, end: End) -> Told {
    told.bytes.truncate(told.bytes.len() - missing);
    Told { end, ..told }
}

#[tokio::test]
async fn a_whole_object_without_a_range_is_used_if_it_was_asked_whole() {
    let liar = Liar::start(|_, _| told("200 OK", &[("ETag", "\"v1\"")], CONTENT)).await;
    let (bytes, end) = read_briefly(&*liar.open().await, whole()).await;
    end.unwrap();
    assert_eq!(bytes, CONTENT);
}

#[tokio::test]
async fn another_version_is_stale_at_the_start_and_in_the_middle() {
    let replaced = b"another object, of 36 bytes as well.";
    assert_eq!(replaced.len(), CONTENT.len());
    let answers: [fn(&crate::liar::Asked) -> Told; 4] = [
        |asked| honest(asked, b"another object, of 36 bytes as well.", "v2"),
        |_| refused("412 Precondition Failed", "PreconditionFailed", "no"),
        |_| refused("416 Range Not Satisfiable", "InvalidRange", "no"),
        |_| refused("404 Not Found", "NoSuchKey", "no"),
    ];
    for answer in answers {
        for good in [0, 1] {
            let liar = Liar::start(move |index, asked| match index < good {
                true => broken(honest(asked, CONTENT, "v1"), 20, End::Reset),
                false => answer(asked),
            });
            let liar = liar.await;
            let storage = liar.open().await;
            let (bytes, end) = read_briefly(&*storage, whole()).await;
            assert_eq!(bytes, &CONTENT[..16 * good]);
            let error = end.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
            assert_eq!(liar.asked().len(), good + 1, "not sent again");
        }
    }
}

#[tokio::test]
async fn bytes_without_an_etag_are_not_used() {
    let liar = Liar::start(|_, asked| {
        let (first, last) = asked.range();
        let range = format!("bytes {first}-{last}/36");
        told(
            "206 Partial Content",
            &[("Content-Range", &range)],
            &CONTENT[first..=last],
        )
    });
    let (bytes, end) = read_briefly(&*liar.await.open().await, ByteRange::new(5, 5)).await;
    assert_eq!(
        (bytes.len(), end.unwrap_err().kind()),
        (0, ErrorKind::Unsupported)
    );
}

#[tokio::test]
async fn a_busy_storage_is_asked_again_until_it_answers() {
    let liar = Liar::start(|index, asked| match index {
        0 => refused("503 Service Unavailable", "SlowDown", "reduce your rate"),
        1 => refused("500 Internal Server Error", "InternalError", "again"),
        2 => told("429 Too Many Requests", &[], b""),
        3 => told("502 Bad Gateway", &[], b"<html>"),
        _ => honest(asked, CONTENT, "v1"),
    });
    let liar = liar.await;
    let storage = liar.open().await;
    assert_eq!(
        read(&*storage, b"k", &v1(36), whole()).await.unwrap(),
        CONTENT
    );
    let counts = storage.counters().snapshot();
    assert_eq!(
        (counts.get, counts.retries, counts.errors, counts.throttled),
        (5, 4, 4, 2)
    );
}

#[tokio::test]
async fn what_asking_again_cannot_mend_is_said_at_once_and_without_secrets() {
    let cases = [
        (
            "403 Forbidden",
            "AccessDenied",
            ErrorKind::PermissionDenied,
            "list and read bucket 'b'",
        ),
        (
            "403 Forbidden",
            "InvalidAccessKeyId",
            ErrorKind::PermissionDenied,
            "access key",
        ),
        (
            "403 Forbidden",
            "SignatureDoesNotMatch",
            ErrorKind::PermissionDenied,
            "secret access key",
        ),
        (
            "400 Bad Request",
            "ExpiredToken",
            ErrorKind::PermissionDenied,
            "new credentials",
        ),
        (
            "404 Not Found",
            "NoSuchBucket",
            ErrorKind::NotFound,
            "bucket 'b' does not exist",
        ),
        (
            "301 Moved Permanently",
            "PermanentRedirect",
            ErrorKind::Invalid,
            "region",
        ),
    ];
    for (status, code, kind, advice) in cases {
        let liar = Liar::start(move |_, _| refused(status, code, "said of hunter2 and tok3n"));
        let liar = liar.await;
        let storage = liar.open().await;
        let errors = [
            read(&*storage, b"k", &v1(36), whole()).await.unwrap_err(),
            list(&*storage, b"").await.unwrap_err(),
        ];
        for error in errors {
            let text = format!("{error} {error:?}");
            assert_eq!(error.kind(), kind, "{text}");
            assert!(text.contains(code) && text.contains(advice), "{text}");
            assert!(text.contains("said of (hidden) and (hidden)"), "{text}");
        }
        assert_eq!(liar.asked().len(), 2, "not sent again");
        let shown = format!("{storage:?} {} {}", storage.uri(), storage.identity());
        assert!(
            !shown.contains("hunter2") && !shown.contains("tok3n"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn only_a_404_makes_a_name_absent() {
    for (status, kind) in [
        ("403 Forbidden", ErrorKind::PermissionDenied),
        ("400 Bad Request", ErrorKind::Invalid),
        ("405 Method Not Allowed", ErrorKind::Invalid),
        ("500 Internal Server Error", ErrorKind::Unavailable),
    ] {
        let liar = Liar::start(move |_, _| told(status, &[], b"")).await;
        let deadline = SystemClock.deadline(Duration::from_millis(200));
        let path = ObjectPath::parse(b"k").unwrap();
        let error = liar.open().await.stat(&path, deadline).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    // The HEAD says no, and the look for a directory of that name fails.
    for (status, code, kind) in [
        ("403 Forbidden", "AccessDenied", ErrorKind::PermissionDenied),
        (
            "404 Not Found",
            "XAdminUserNotFound",
            ErrorKind::PermissionDenied,
        ),
        ("404 Not Found", "", ErrorKind::Unsupported),
    ] {
        let liar = Liar::start(move |_, asked| match asked.method.as_str() {
            "HEAD" => told("404 Not Found", &[], b""),
            _ => refused(status, code, "no"),
        });
        let error = stat(&*liar.await.open().await, b"k").await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test]
async fn a_listing_that_is_cut_is_asked_again_and_never_shown() {
    let page = "<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents><Contents>\
                <Key>b</Key><Size>1</Size></Contents></ListBucketResult>";
    let liar = Liar::start(move |index, _| match index {
        0 => told("200 OK", &[], &page.as_bytes()[..70]),
        1 => told("200 OK", &[], b"<html><body>please log in</body></html>"),
        _ => told("200 OK", &[], page.as_bytes()),
    });
    let liar = liar.await;
    let storage = liar.open().await;
    let (entries, _) = list(&*storage, b"").await.unwrap();
    assert_eq!((entries.len(), liar.asked().len()), (2, 3));
}

#[tokio::test]
async fn an_empty_object_at_the_place_of_a_directory_is_that_directory() {
    for (size, below, kind, requests) in [
        (0, true, NodeKind::Directory, 2),
        (0, false, NodeKind::File, 2),
        (5, true, NodeKind::File, 1),
    ] {
        let liar = Liar::start(move |_, asked| match (asked.method.as_str(), below) {
            ("HEAD", _) => {
                let size = size.to_string();
                let headers = [("ETag", "\"v1\""), ("Content-Length", size.as_str())];
                told("200 OK", &headers, b"")
            }
            (_, true) => told(
                "200 OK",
                &[],
                b"<ListBucketResult><Contents><Key>k/x</Key><Size>1</Size></Contents>\
                  </ListBucketResult>",
            ),
            (_, false) => told("200 OK", &[], b"<ListBucketResult></ListBucketResult>"),
        });
        let liar = liar.await;
        let found = stat(&*liar.open().await, b"k").await.unwrap();
        assert_eq!(found.kind, kind, "{size} {below}");
        assert_eq!(liar.asked().len(), requests, "{size} {below}");
    }
}
