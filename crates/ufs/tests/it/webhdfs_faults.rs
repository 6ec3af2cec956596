// SPDX-License-Identifier: Apache-2.0
//! A WebHDFS that fails and lies while a file is read: never a wrong byte, and an error in time.
//!
//! It reads pieces whole: bytes of a data node, then a look at the version by the name node. Both
//! are the same server here, which answers looks right unless a test says otherwise. What all
//! storages over HTTP have in common is in `faults`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use types::{ByteRange, Clock, ErrorKind, ObjectPath, Result, SystemClock, VersionTag};
use ufs::UnderStorage;
use ufs::conformance::read;

use crate::liar::{Asked, End, Liar, Told, told};

const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

fn whole() -> ByteRange {
    ByteRange::new(0, CONTENT.len() as u64)
}

/// The version of a file with number 255 that changed 16 milliseconds after 1970.
fn v1() -> VersionTag {
    VersionTag {
        etag: Some("ff-10".into()),
        mtime_ns: 16_000_000,
        size: CONTENT.len() as u64,
    }
}

fn look(file: u64, time: u64, len: usize) -> Told {
    let status = format!(
        "{{\"FileStatus\":{{\"type\":\"FILE\",\"fileId\":{file},\"modificationTime\":{time},\
         \"length\":{len},\"permission\":\"644\",\"owner\":\"o\",\"group\":\"g\"}}}}"
    );
    told("200 OK", &[], status.as_bytes())
}

fn exception(status: &str, name: &str) -> Told {
    let body = format!("{{\"RemoteException\":{{\"exception\":\"{name}\",\"message\":\"m\"}}}}");
    told(status, &[], body.as_bytes())
}

/// The number of a request for bytes and what it asks for, or that it is a look.
fn asks_for_bytes(asked: &Asked) -> Option<(usize, usize)> {
    let (_, query) = asked.target.split_once("?op=OPEN&").unwrap_or_default();
    let number = |name| {
        let mut words = query.split('&').filter_map(|word| word.split_once('='));
        words.find(|(key, _)| *key == name)?.1.parse().ok()
    };
    let (offset, len): (usize, usize) = (number("offset")?, number("length")?);
    Some((offset, offset + len))
}

/// Starts a server that answers requests for bytes by a script and looks with the first version.
async fn bytes_by(
    script: impl Fn(usize, (usize, usize)) -> Told + Send + Sync + 'static,
) -> (Liar, Arc<dyn UnderStorage>) {
    let count = AtomicUsize::new(0);
    serve(move |asked| match asks_for_bytes(asked) {
        Some(range) => script(count.fetch_add(1, Ordering::Relaxed), range),
        None => look(255, 16, CONTENT.len()),
    })
    .await
}

async fn serve(
    script: impl Fn(&Asked) -> Told + Send + Sync + 'static,
) -> (Liar, Arc<dyn UnderStorage>) {
    let liar = Liar::start(move |_, asked| script(asked)).await;
    let uri = liar.endpoint().replace("http://", "webhdfs://");
    let storage = liar.open_as(&uri, &[("user", "u")]).await.unwrap();
    (liar, storage)
}

fn honest((from, to): (usize, usize)) -> Told {
    told("200 OK", &[], &CONTENT[from..to])
}

/// Sends the head and only so many bytes of the body.
fn broken(mut told: Told, missing: usize, end: End) -> Told {
    told.bytes.truncate(told.bytes.len() - missing);
    Told { end, ..told }
}

/// Reads with little time; returns the bytes that came and the end.
async fn read_briefly(storage: &dyn UnderStorage, range: ByteRange) -> (Vec<u8>, Result<()>) {
    let deadline = SystemClock.deadline(Duration::from_millis(400));
    let path = ObjectPath::parse(b"k").unwrap();
    let mut bytes = Vec::new();
    let mut stream = storage.read(&path, &v1(), range, deadline).await.unwrap();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => return (bytes, Err(error)),
        }
    }
    (bytes, Ok(()))
}

#[tokio::test]
async fn a_body_that_breaks_off_is_asked_for_again() {
    for end in [End::Close, End::Reset, End::Silence] {
        let (_liar, storage) = bytes_by(move |index, range| match index {
            0 => broken(honest(range), 20, end),
            1 => broken(honest(range), 36, end),
            _ => honest(range),
        })
        .await;
        let bytes = read(&*storage, b"k", &v1(), whole()).await.unwrap();
        assert_eq!(bytes, CONTENT, "{end:?}");
        let counts = storage.counters().snapshot();
        assert_eq!((counts.get, counts.retries, counts.bytes_read), (3, 2, 36));
    }
}

#[tokio::test]
async fn a_body_that_stays_short_or_silent_is_an_error_in_time() {
    for end in [End::Close, End::Reset, End::Silence] {
        let (_liar, storage) = bytes_by(move |_, range| broken(honest(range), 26, end)).await;
        let started = SystemClock.now();
        let (bytes, end) = read_briefly(&*storage, whole()).await;
        let error = end.unwrap_err();
        let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout];
        assert!(bytes.is_empty() && kinds.contains(&error.kind()), "{error}");
        assert!(SystemClock.now() - started < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_read_or_ends_at_the_deadline() {
    let slow = |_, range| Told {
        end: End::Trickle,
        ..honest(range)
    };
    let (liar, storage) = bytes_by(slow).await;
    let bytes = read(&*storage, b"k", &v1(), whole()).await.unwrap();
    assert_eq!((bytes.as_slice(), liar.asked().len()), (CONTENT, 2));
    let started = SystemClock.now();
    let (bytes, end) = read_briefly(&*storage, whole()).await;
    let kind = end.unwrap_err().kind();
    assert_eq!((bytes.len(), kind), (0, ErrorKind::Timeout));
    assert!(SystemClock.now() - started < Duration::from_secs(2));
}

#[tokio::test]
async fn a_connection_that_is_half_open_is_given_up_and_another_one_used() {
    let silent = || Told {
        bytes: Vec::new(),
        end: End::Silence,
    };
    let (_liar, storage) = bytes_by(move |index, range| match index {
        0 => silent(),
        _ => honest(range),
    })
    .await;
    let bytes = read(&*storage, b"k", &v1(), whole()).await.unwrap();
    assert_eq!(bytes, CONTENT);
}

#[tokio::test]
async fn a_busy_service_is_asked_again_until_it_answers() {
    let (_liar, storage) = bytes_by(|index, range| match index {
        0 => told("503 Service Unavailable", &[("Retry-After", "1")], b""),
        1 => told("500 Internal Server Error", &[], b"<html>"),
        2 => told("429 Too Many Requests", &[], b""),
        3 => told("502 Bad Gateway", &[], b"<html>"),
        4 => exception("403 Forbidden", "StandbyException"),
        _ => honest(range),
    })
    .await;
    let bytes = read(&*storage, b"k", &v1(), whole()).await.unwrap();
    assert_eq!(bytes, CONTENT);
    let counts = storage.counters().snapshot();
    assert_eq!((counts.get, counts.retries, counts.errors), (6, 5, 5));
    assert!(counts.throttled >= 2, "{counts:?}");
}

#[tokio::test]
async fn a_length_that_is_wrong_never_passes_for_the_range() {
    let bodies = [
        ("Transfer-Encoding: chunked", "5\r\n01234\r\n0\r\n\r\n"),
        (
            "Transfer-Encoding: chunked",
            "b\r\n0123456789X\r\n0\r\n\r\n",
        ),
        ("Transfer-Encoding: chunked", "a\r\n0123456789\r\n"),
        ("Content-Length: 11", "0123456789X"),
        ("Content-Length: 9", "012345678"),
    ];
    for (length, body) in bodies {
        let (_liar, storage) = bytes_by(move |_, _| {
            let length = length.split_once(": ").unwrap();
            told("200 OK", &[length], body.as_bytes())
        })
        .await;
        let (bytes, end) = read_briefly(&*storage, ByteRange::new(0, 10)).await;
        let kind = end.unwrap_err().kind();
        let wanted = (0, ErrorKind::Unavailable);
        assert_eq!((bytes.len(), kind), wanted, "{length} {body:?}");
    }
}

#[tokio::test]
async fn a_whole_file_in_place_of_a_range_is_not_used() {
    let (_liar, storage) = bytes_by(|_, _| honest((0, CONTENT.len()))).await;
    let (bytes, end) = read_briefly(&*storage, ByteRange::new(10, 10)).await;
    let kind = end.unwrap_err().kind();
    assert_eq!((bytes.len(), kind), (0, ErrorKind::Unavailable));
}

#[tokio::test]
async fn another_version_is_stale_whatever_came_of_its_bytes() {
    let looks: [fn() -> Told; 5] = [
        || look(256, 16, CONTENT.len()),
        || look(255, 17, CONTENT.len()),
        || look(255, 16, CONTENT.len() - 1),
        || exception("404 Not Found", "FileNotFoundException"),
        || exception("403 Forbidden", "ParentNotDirectoryException"),
    ];
    for (index, look) in looks.into_iter().enumerate() {
        for good in [true, false] {
            let (_liar, storage) = serve(move |asked| match asks_for_bytes(asked) {
                Some(range) if good => honest(range),
                Some(range) => broken(honest(range), 20, End::Reset),
                None => look(),
            })
            .await;
            let (bytes, end) = read_briefly(&*storage, whole()).await;
            let error = end.unwrap_err();
            let came = (bytes.len(), error.kind());
            assert_eq!(came, (0, ErrorKind::Stale), "{index} {good}: {error}");
            assert_eq!(storage.counters().snapshot().get, 1, "not sent again");
        }
    }
}

#[tokio::test]
async fn bytes_whose_version_cannot_be_looked_at_are_not_used() {
    for status in ["500 Internal Server Error", "404 Not Found"] {
        let (_liar, storage) = serve(move |asked| match asks_for_bytes(asked) {
            Some(range) => honest(range),
            None => told(status, &[], b"<html>"),
        })
        .await;
        let (bytes, end) = read_briefly(&*storage, whole()).await;
        let kind = end.unwrap_err().kind();
        let kinds = [ErrorKind::Unavailable, ErrorKind::Invalid];
        assert!(
            bytes.is_empty() && kinds.contains(&kind),
            "{status} {kind:?}"
        );
    }
}

#[tokio::test]
async fn a_data_node_that_fails_is_asked_for_again_at_the_name_node() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/there", free.local_addr().unwrap());
    drop(free);
    let (_liar, storage) = bytes_by(move |index, range| match index {
        0 => told("307 Temporary Redirect", &[("Location", &nobody)], b""),
        _ => honest(range),
    })
    .await;
    let bytes = read(&*storage, b"k", &v1(), whole()).await.unwrap();
    assert_eq!(bytes, CONTENT);
}

#[tokio::test]
async fn a_dropped_read_gives_its_connection_back() {
    let (liar, storage) = bytes_by(|_, range| broken(honest(range), 20, End::Silence)).await;
    let path = ObjectPath::parse(b"k").unwrap();
    // More than the four connections that there are.
    for round in 1..=6 {
        let deadline = SystemClock.deadline(Duration::from_secs(20));
        let mut stream = storage.read(&path, &v1(), whole(), deadline).await.unwrap();
        let arrived = async {
            while liar.asked().len() < round {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            piece = stream.next() => panic!("{piece:?}"),
            () = arrived => {}
        }
    }
}
