// SPDX-License-Identifier: Apache-2.0
//! A machine whose clock is wrong, by hours and to both sides: the right bytes, or an error that names
//! the clock and what to do. Real S3 servers with such a clock are in `s3_bucket`; HDFS in
//! `hdfs_write`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqsign_core::time::Timestamp;
use types::{ByteRange, Clock, ErrorKind, SystemClock};
use ufs::conformance::{list, read, stat};
use ufs::probe;

use crate::faults::{CONTENT, DRIVERS, all_drivers, honest, v1, whole};
use crate::liar::{Asked, Liar, Told, refused, told};

/// How far the clock of a storage is ahead of ours, in seconds.
const OFF: [i64; 2] = [7200, -7200];
/// What storages take, in seconds.
const TAKEN: u64 = 900;

fn their_time(ahead: i64) -> SystemTime {
    let by = Duration::from_secs(ahead.unsigned_abs());
    match ahead < 0 {
        true => SystemClock.wall() - by,
        false => SystemClock.wall() + by,
    }
}

fn stamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_second(since.as_secs().try_into().unwrap()).unwrap()
}

/// Puts the time of the storage into an answer.
fn dated(mut told: Told, ahead: i64) -> Told {
    let date = stamp(their_time(ahead)).format_http_date();
    let line = format!("\r\nDate: {date}");
    let at = told
        .bytes
        .windows(2)
        .position(|two| two == b"\r\n")
        .unwrap();
    told.bytes.splice(at..at, line.into_bytes());
    told
}

/// Returns whether a request was signed at a time that S3 takes.
fn is_in_time(asked: &Asked, ahead: i64) -> bool {
    let near = |time: SystemTime| stamp(time).format_iso8601();
    let signed = asked.header("x-amz-date");
    let (first, last) = (
        near(their_time(ahead) - Duration::from_secs(TAKEN)),
        near(their_time(ahead) + Duration::from_secs(TAKEN)),
    );
    (first.as_str()..=last.as_str()).contains(&signed)
}

#[tokio::test]
async fn what_is_refused_by_a_storage_of_another_time_is_said_with_the_clock_and_the_fix() {
    for driver in all_drivers() {
        for ahead in OFF {
            let refusal = move |_, _: &Asked| dated(told("403 Forbidden", &[], b""), ahead);
            let liar = Liar::start(refusal).await;
            let storage = driver.open(&liar).await;
            let started = SystemClock.now();
            let deadline = SystemClock.deadline(Duration::from_secs(20));
            for error in [
                probe(&*storage, deadline).await.unwrap_err(),
                stat(&*storage, b"k").await.unwrap_err(),
                read(&*storage, b"k", &v1(), whole()).await.unwrap_err(),
            ] {
                let text = error.to_string();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{text}");
                let side = if ahead < 0 { "ahead of" } else { "behind" };
                // A second may go by between two looks at the clock.
                let known = ["2 hours", "119 minutes"].map(|off| {
                    format!("the clock of this machine is {off} {side} that of the storage: set it")
                });
                let told = known.iter().any(|words| text.contains(words));
                assert!(told, "{}: {text}", driver.uri);
            }
            assert!(SystemClock.now() - started < Duration::from_secs(5));
        }
    }
}

#[tokio::test]
async fn who_is_not_asked_for_the_time_reads_the_right_bytes_whatever_it_is() {
    for driver in &DRIVERS {
        for ahead in OFF {
            let liar = Liar::start(move |index, asked| {
                let come_back = stamp(their_time(ahead) + Duration::from_secs(1));
                let come_back = come_back.format_http_date();
                let busy = [("Retry-After", come_back.as_str())];
                dated(
                    match index {
                        0 => told("503 Service Unavailable", &busy, b""),
                        _ => honest(asked, "v1"),
                    },
                    ahead,
                )
            });
            let liar = liar.await;
            let storage = driver.open(&liar).await;
            let started = SystemClock.now();
            let bytes = read(&*storage, b"k", &v1(), whole()).await.unwrap();
            assert_eq!(bytes, CONTENT, "{}", driver.uri);
            assert!(SystemClock.now() - started < Duration::from_secs(5));
        }
    }
    for driver in all_drivers() {
        for ahead in OFF {
            let liar = Liar::start(move |index, _| {
                let come_back = stamp(their_time(ahead) + Duration::from_secs(1));
                let come_back = come_back.format_http_date();
                let busy = [("Retry-After", come_back.as_str())];
                let answer = match index {
                    0 => told("503 Service Unavailable", &busy, b""),
                    _ => told("200 OK", &[], driver.page.as_bytes()),
                };
                dated(answer, ahead)
            });
            let liar = liar.await;
            let deadline = SystemClock.deadline(Duration::from_secs(5));
            probe(&*driver.open(&liar).await, deadline).await.unwrap();
        }
    }
}

#[tokio::test]
async fn s3_is_signed_for_at_its_own_time_once_it_has_told_it() {
    for ahead in OFF {
        let liar = Liar::start(move |_, asked| {
            let answer = match (is_in_time(asked, ahead), asked.method.as_str()) {
                // The answer to a HEAD has no body to say why.
                (false, "HEAD") => told("403 Forbidden", &[], b""),
                (false, _) => refused("403 Forbidden", "RequestTimeTooSkewed", "too far off"),
                (true, "HEAD") => told(
                    "200 OK",
                    &[("ETag", "\"v1\""), ("Content-Length", "36")],
                    b"",
                ),
                (true, _) if asked.target.contains("list-type") => told(
                    "200 OK",
                    &[],
                    b"<ListBucketResult><Contents><Key>k</Key><Size>1</Size></Contents>\
                      </ListBucketResult>",
                ),
                (true, _) => honest(asked, "v1"),
            };
            dated(answer, ahead)
        });
        let liar = liar.await;
        let first = liar.open().await;
        assert_eq!(stat(&*first, b"k").await.unwrap().tag.size, 36);
        assert_eq!(liar.asked().len(), 2, "sent again at the right time");
        let range = ByteRange::new(3, 4);
        let bytes = read(&*first, b"k", &v1(), range).await.unwrap();
        assert_eq!(bytes, &CONTENT[3..7]);
        assert_eq!(list(&*first, b"").await.unwrap().0.len(), 1);
        assert_eq!(liar.asked().len(), 4, "and at once from then on");
        let counts = first.counters().snapshot();
        assert_eq!((counts.retries, counts.errors), (1, 1));
        let other = liar.open().await;
        let bytes = read(&*other, b"k", &v1(), range).await.unwrap();
        assert_eq!(bytes, &CONTENT[3..7]);
    }
}

#[tokio::test]
async fn a_refusal_that_the_right_time_does_not_mend_comes_back_after_one_more_try() {
    let words = "the secret is wrong too";
    let liar = Liar::start(move |_, _| {
        dated(
            refused("403 Forbidden", "SignatureDoesNotMatch", words),
            7200,
        )
    });
    let liar = liar.await;
    let storage = liar.open().await;
    for requests in [2, 3] {
        let error = read(&*storage, b"k", &v1(), whole()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("set it"), "{text}");
        assert!(text.contains("check the secret access key"), "{text}");
        assert_eq!(liar.asked().len(), requests);
    }
}
