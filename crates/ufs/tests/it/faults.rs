// SPDX-License-Identifier: Apache-2.0
//! Storages over HTTP that fail and lie, all drivers alike: never a wrong byte, and errors that say
//! what is wrong. What is S3's alone is in `s3_faults`; how WebHDFS reads, which asks for no ranges
//! and sends no conditions, is in `webhdfs_faults`.

use std::time::Duration;

use futures::StreamExt;
use types::{ByteRange, Clock, ErrorKind, ObjectPath, Result, SystemClock, VersionTag};
use ufs::conformance::{list, read, stat};
use ufs::{UnderStorage, probe};

use crate::liar::{Asked, End, Liar, Told, told};

pub(crate) const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A driver, and how to open it at a server that lies.
pub(crate) struct Driver {
    /// With `ENDPOINT` for the place of the server, or `SERVER` for its host and port.
    pub(crate) uri: &'static str,
    options: &'static [(&'static str, &'static str)],
    /// How the condition on the version looks in a request; empty when there is none to send.
    condition: fn(&Asked) -> bool,
    /// A listing of the root with two objects; the driver may ask for each of them.
    pub(crate) page: &'static str,
    /// A listing of nothing that says where its next page is, at a place given by a number.
    circle: Option<fn(usize) -> Told>,
    /// What comes of an answer that ignores the range.
    ignores_range: Option<ErrorKind>,
}

pub(crate) const DRIVERS: [Driver; 5] = [
    Driver {
        uri: "s3://b/",
        options: &[
            ("endpoint", "ENDPOINT"),
            ("access_key_id", "id"),
            ("secret_access_key", "hunter2"),
            ("session_token", "tok3n"),
        ],
        condition: |asked| asked.header("if-match") == "\"v1\"",
        page: "<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents><Contents>\
               <Key>b</Key><Size>1</Size></Contents></ListBucketResult>",
        circle: Some(|place| {
            let page = format!(
                "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{place}\
                 </NextContinuationToken></ListBucketResult>"
            );
            told("200 OK", &[], page.as_bytes())
        }),
        ignores_range: Some(ErrorKind::Unsupported),
    },
    Driver {
        uri: "az://container/",
        options: &[
            ("endpoint", "ENDPOINT/account"),
            ("account_name", "account"),
            ("account_key", "aHVudGVyMg=="),
        ],
        condition: |asked| asked.header("if-match") == "\"v1\"",
        page: "<EnumerationResults><Blobs><Blob><Name>a</Name><Properties><Content-Length>1\
               </Content-Length></Properties></Blob><Blob><Name>b</Name><Properties>\
               <Content-Length>1</Content-Length></Properties></Blob></Blobs><NextMarker />\
               </EnumerationResults>",
        circle: Some(|place| {
            let page = format!(
                "<EnumerationResults><Blobs/><NextMarker>{place}</NextMarker></EnumerationResults>"
            );
            told("200 OK", &[], page.as_bytes())
        }),
        ignores_range: Some(ErrorKind::Unsupported),
    },
    Driver {
        uri: "gs://bucket/",
        options: &[("endpoint", "ENDPOINT"), ("token", "tok3n")],
        condition: |asked| asked.target.contains("ifGenerationMatch=v1"),
        page: "{\"kind\":\"storage#objects\",\"items\":[{\"name\":\"a\",\"size\":\"1\",\
               \"generation\":\"1\"},{\"name\":\"b\",\"size\":\"1\",\"generation\":\"1\"}]}",
        circle: Some(|place| {
            let page = format!("{{\"kind\":\"storage#objects\",\"nextPageToken\":\"{place}\"}}");
            told("200 OK", &[], page.as_bytes())
        }),
        ignores_range: Some(ErrorKind::Unsupported),
    },
    Driver {
        uri: "hf://datasets/owner/name",
        options: &[
            ("endpoint", "ENDPOINT"),
            ("token", "tok3n"),
            ("follow", "true"),
        ],
        condition: |_| true,
        page: "[{\"type\":\"file\",\"oid\":\"1\",\"size\":1,\"path\":\"a\"},\
               {\"type\":\"file\",\"oid\":\"2\",\"size\":1,\"path\":\"b\"}]",
        circle: Some(|place| {
            let link = format!("<http://h/api/x?cursor={place}>; rel=\"next\"");
            told("200 OK", &[("Link", link.as_str())], b"[]")
        }),
        ignores_range: None,
    },
    Driver {
        uri: "ENDPOINT/dir/",
        options: &[("token", "tok3n")],
        condition: |asked| asked.header("if-match") == "\"v1\"",
        page: "<title>Index of /dir</title><a href=\"a\">a</a><a href=\"b\">b</a></html>",
        circle: None,
        ignores_range: None,
    },
];

/// Reads in a way of its own: see `webhdfs_faults`.
const WEBHDFS: Driver = Driver {
    uri: "webhdfs://SERVER/",
    options: &[("token", "tok3n")],
    condition: |_| false,
    page: "{\"DirectoryListing\":{\"partialListing\":{\"FileStatuses\":{\"FileStatus\":[\
           {\"pathSuffix\":\"a\",\"type\":\"FILE\",\"length\":1,\"modificationTime\":1,\"permission\":\
           \"644\",\"owner\":\"o\",\"group\":\"g\"},{\"pathSuffix\":\"b\",\"type\":\"FILE\",\"length\":1,\
           \"modificationTime\":1,\"permission\":\"644\",\"owner\":\"o\",\"group\":\"g\"}]}},\
           \"remainingEntries\":0}}",
    circle: None,
    ignores_range: None,
};

/// Returns all drivers, for what they do alike but reading.
pub(crate) fn all_drivers() -> impl Iterator<Item = &'static Driver> {
    DRIVERS.iter().chain([&WEBHDFS])
}

impl Driver {
    pub(crate) async fn open(&self, liar: &Liar) -> std::sync::Arc<dyn UnderStorage> {
        let (_, server) = liar.endpoint().split_once("://").unwrap();
        let fill = |text: &str| {
            let text = text.replace("ENDPOINT", liar.endpoint());
            text.replace("SERVER", server)
        };
        let options: Vec<_> = self.options.iter().map(|(k, v)| (*k, fill(v))).collect();
        let options: Vec<_> = options.iter().map(|(k, v)| (*k, v.as_str())).collect();
        liar.open_as(&fill(self.uri), &options).await.unwrap()
    }
}

pub(crate) fn whole() -> ByteRange {
    ByteRange::new(0, CONTENT.len() as u64)
}

pub(crate) fn v1() -> VersionTag {
    crate::liar::v1(CONTENT.len())
}

/// Answers a ranged GET of the content with the version in the words of every driver.
pub(crate) fn honest(asked: &Asked, version: &str) -> Told {
    let (first, last) = asked.range();
    let range = format!("bytes {first}-{last}/{}", CONTENT.len());
    let etag = format!("\"{version}\"");
    let headers = [
        ("Content-Range", range.as_str()),
        ("ETag", etag.as_str()),
        ("x-goog-generation", version),
    ];
    told("206 Partial Content", &headers, &CONTENT[first..=last])
}

/// Sends the head and only so many bytes of the body.
fn broken(mut told: Told, missing: usize, end: End) -> Told {
    told.bytes.truncate(told.bytes.len() - missing);
    Told { end, ..told }
}

/// Reads with little time; returns what came before the end and the end.
async fn read_briefly(storage: &dyn UnderStorage, range: ByteRange) -> (Vec<u8>, Result<()>) {
    let deadline = SystemClock.deadline(Duration::from_millis(400));
    let path = ObjectPath::parse(b"k").unwrap();
    let mut bytes = Vec::new();
    let mut stream = match storage.read(&path, &v1(), range, deadline).await {
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

#[tokio::test]
async fn names_go_out_as_they_are() {
    let longest = "x".repeat(1024);
    let names = [
        (" a ", "%20a%20"),
        ("\na\t", "%0Aa%09"),
        ("\u{1}\u{7f}", "%01%7F"),
        ("a%2Fb", "a%252Fb"),
        ("a+b", "a%2Bb"),
        ("?q=1&r", "%3Fq%3D1%26r"),
        ("#f", "%23f"),
        ("%2e%2e", "%252e%252e"),
        ("e\u{301}\u{e9}", "e%CC%81%C3%A9"),
        (longest.as_str(), longest.as_str()),
    ];
    for driver in all_drivers() {
        let liar = Liar::start(|_, _| told("404 Not Found", &[], b"")).await;
        let storage = driver.open(&liar).await;
        for (name, encoded) in &names {
            let before = liar.asked().len();
            // Whatever comes of it: what is looked at is what was asked for.
            let _absent = stat(&*storage, format!("dir/{name}").as_bytes()).await;
            let target = liar.asked()[before].target.clone();
            let path = target.split('?').next().unwrap().replace("dir%2F", "dir/");
            let wanted = format!("/dir/{encoded}");
            assert!(
                path.ends_with(&wanted),
                "{}: {name:?}: {target}",
                driver.uri
            );
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_resumed_under_the_same_condition() {
    for driver in &DRIVERS {
        for end in [End::Close, End::Reset, End::Silence] {
            let liar = Liar::start(move |index, asked| match index {
                0 => broken(honest(asked, "v1"), 20, end),
                1 => broken(honest(asked, "v1"), 7, end),
                _ => honest(asked, "v1"),
            });
            let liar = liar.await;
            let storage = driver.open(&liar).await;
            let bytes = read(&*storage, b"k", &v1(), whole()).await.unwrap();
            assert_eq!(bytes, CONTENT, "{} {end:?}", driver.uri);
            let asked = liar.asked();
            let ranges: Vec<_> = asked.iter().map(Asked::range).collect();
            assert_eq!(
                ranges,
                [(0, 35), (16, 35), (29, 35)],
                "{} {end:?}",
                driver.uri
            );
            assert!(asked.iter().all(driver.condition), "{}", driver.uri);
            let counts = storage.counters().snapshot();
            assert_eq!((counts.get, counts.retries, counts.bytes_read), (3, 2, 36));
        }
    }
}

#[tokio::test]
async fn a_body_that_stays_short_or_silent_is_an_error_in_time() {
    for driver in &DRIVERS {
        for end in [End::Close, End::Reset, End::Silence] {
            let liar = Liar::start(move |_, asked| match asked.range().0 {
                0 => broken(honest(asked, "v1"), 26, end),
                _ => broken(honest(asked, "v1"), 26, end),
            });
            let liar = liar.await;
            let started = SystemClock.now();
            let (bytes, end) = read_briefly(&*driver.open(&liar).await, whole()).await;
            assert_eq!(bytes, &CONTENT[..10], "{}", driver.uri);
            let error = end.unwrap_err();
            let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout];
            assert!(kinds.contains(&error.kind()), "{}: {error}", driver.uri);
            assert!(SystemClock.now() - started < Duration::from_secs(3));
        }
    }
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_read_or_ends_at_the_deadline() {
    let reads = DRIVERS.iter().map(async |driver| {
        let slow = |_, asked: &Asked| Told {
            end: End::Trickle,
            ..honest(asked, "v1")
        };
        let liar = Liar::start(slow).await;
        let storage = driver.open(&liar).await;
        let bytes = read(&*storage, b"k", &v1(), whole()).await.unwrap();
        assert_eq!(bytes, CONTENT, "{}", driver.uri);
        assert_eq!(
            liar.asked().len(),
            1,
            "{}: it moved all the time",
            driver.uri
        );
        let started = SystemClock.now();
        let (bytes, end) = read_briefly(&*storage, whole()).await;
        let error = end.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{}: {error}", driver.uri);
        assert!(
            bytes.len() < 36 && CONTENT.starts_with(&bytes),
            "{}",
            driver.uri
        );
        assert!(SystemClock.now() - started < Duration::from_secs(2));
    });
    futures::future::join_all(reads).await;
}

#[tokio::test]
async fn a_connection_that_is_half_open_is_given_up_and_another_one_used() {
    for driver in &DRIVERS {
        let liar = Liar::start(|index, asked| match index {
            0 | 1 => Told {
                bytes: Vec::new(),
                end: End::Silence,
            },
            _ => honest(asked, "v1"),
        });
        let liar = liar.await;
        let storage = driver.open(&liar).await;
        let bytes = read(&*storage, b"k", &v1(), whole()).await.unwrap();
        assert_eq!(
            (bytes.as_slice(), liar.asked().len()),
            (CONTENT, 3),
            "{}",
            driver.uri
        );
    }
}

#[tokio::test]
async fn a_length_that_is_wrong_never_passes_for_the_range() {
    let bodies: [(&str, &str); 5] = [
        ("Transfer-Encoding: chunked", "5\r\n01234\r\n0\r\n\r\n"),
        (
            "Transfer-Encoding: chunked",
            "b\r\n0123456789X\r\n0\r\n\r\n",
        ),
        ("Transfer-Encoding: chunked", "a\r\n0123456789\r\n"),
        ("Content-Length: 11", "0123456789X"),
        ("Content-Length: 9", "012345678"),
    ];
    for driver in &DRIVERS {
        for (length, body) in bodies {
            let liar = Liar::start(move |_, _| {
                let headers = [
                    ("Content-Range", "bytes 0-9/36"),
                    ("ETag", "\"v1\""),
                    ("x-goog-generation", "v1"),
                    length.split_once(": ").unwrap(),
                ];
                told("206 Partial Content", &headers, body.as_bytes())
            });
            let liar = liar.await;
            let (bytes, end) =
                read_briefly(&*driver.open(&liar).await, ByteRange::new(0, 10)).await;
            assert!(bytes.len() < 10, "{} {body:?}", driver.uri);
            let kind = end.unwrap_err().kind();
            assert_eq!(kind, ErrorKind::Unavailable, "{} {body:?}", driver.uri);
        }
    }
}

#[tokio::test]
async fn an_answer_of_another_range_is_not_used() {
    for driver in &DRIVERS {
        for range in [Some("bytes 0-9/36"), Some("bytes 10-18/36"), None] {
            let liar = Liar::start(move |_, _| {
                let mut headers = vec![("ETag", "\"v1\""), ("x-goog-generation", "v1")];
                headers.extend(range.map(|range| ("Content-Range", range)));
                told("206 Partial Content", &headers, &CONTENT[..10])
            });
            let liar = liar.await;
            let (bytes, end) =
                read_briefly(&*driver.open(&liar).await, ByteRange::new(10, 10)).await;
            let kind = end.unwrap_err().kind();
            let wanted = (0, ErrorKind::Unavailable);
            assert_eq!((bytes.len(), kind), wanted, "{} {range:?}", driver.uri);
        }
    }
}

#[tokio::test]
async fn an_answer_that_ignores_the_range_is_skipped_through_or_refused() {
    for driver in &DRIVERS {
        let liar = Liar::start(|_, _| {
            let headers = [("ETag", "\"v1\""), ("x-goog-generation", "v1")];
            told("200 OK", &headers, CONTENT)
        });
        let liar = liar.await;
        let (bytes, end) = read_briefly(&*driver.open(&liar).await, ByteRange::new(10, 10)).await;
        match driver.ignores_range {
            Some(kind) => assert_eq!(end.unwrap_err().kind(), kind, "{}", driver.uri),
            None => assert_eq!(bytes, &CONTENT[10..20], "{}: {end:?}", driver.uri),
        }
    }
}

#[tokio::test]
async fn another_version_is_stale_at_the_start_and_in_the_middle() {
    let answers: [fn(&Asked) -> Told; 4] = [
        |asked| honest(asked, "v2"),
        |_| told("412 Precondition Failed", &[], b""),
        |_| told("416 Range Not Satisfiable", &[], b""),
        |_| told("404 Not Found", &[], b""),
    ];
    for driver in &DRIVERS {
        for answer in answers {
            for good in [0, 1] {
                let liar = Liar::start(move |index, asked| match index < good {
                    true => broken(honest(asked, "v1"), 20, End::Reset),
                    false => answer(asked),
                });
                let liar = liar.await;
                let (bytes, end) = read_briefly(&*driver.open(&liar).await, whole()).await;
                assert_eq!(bytes, &CONTENT[..16 * good], "{}", driver.uri);
                let error = end.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Stale, "{}: {error}", driver.uri);
                assert_eq!(liar.asked().len(), good + 1, "not sent again");
            }
        }
    }
}

#[tokio::test]
async fn a_busy_storage_is_asked_again_until_it_answers() {
    for driver in &DRIVERS {
        let liar = Liar::start(|index, asked| match index {
            0 => told("503 Service Unavailable", &[("Retry-After", "1")], b""),
            1 => told("500 Internal Server Error", &[], b"<html>"),
            2 => told("429 Too Many Requests", &[], b""),
            3 => told("502 Bad Gateway", &[], b"<html>"),
            _ => honest(asked, "v1"),
        });
        let liar = liar.await;
        let storage = driver.open(&liar).await;
        let bytes = read(&*storage, b"k", &v1(), whole()).await.unwrap();
        assert_eq!(bytes, CONTENT, "{}", driver.uri);
        let counts = storage.counters().snapshot();
        let counts = (counts.get, counts.retries, counts.errors, counts.throttled);
        assert_eq!(counts, (5, 4, 4, 2), "{}", driver.uri);
    }
}

#[tokio::test]
async fn a_storage_that_says_when_to_come_back_is_not_asked_before() {
    let asked = all_drivers().map(async |driver| {
        let liar = Liar::start(|index, _| match index {
            0 => told("429 Too Many Requests", &[("Retry-After", "1")], b""),
            1 => told("503 Service Unavailable", &[("Retry-After", "1")], b""),
            _ => told("200 OK", &[], driver.page.as_bytes()),
        });
        let liar = liar.await;
        let storage = driver.open(&liar).await;
        let started = SystemClock.now();
        let deadline = SystemClock.deadline(Duration::from_secs(20));
        probe(&*storage, deadline).await.unwrap();
        let took = SystemClock.now() - started;
        assert!(took >= Duration::from_secs(2), "{}: {took:?}", driver.uri);
        assert_eq!(storage.counters().snapshot().throttled, 2, "{}", driver.uri);
    });
    futures::future::join_all(asked).await;
}

#[tokio::test]
async fn a_storage_that_says_to_come_back_after_the_deadline_fails_at_once() {
    for driver in all_drivers() {
        let liar =
            Liar::start(|_, _| told("503 Service Unavailable", &[("Retry-After", "3600")], b""));
        let liar = liar.await;
        let storage = driver.open(&liar).await;
        let started = SystemClock.now();
        let deadline = SystemClock.deadline(Duration::from_secs(20));
        let path = ObjectPath::parse(b"k").unwrap();
        let error = storage.stat(&path, deadline).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", driver.uri);
        assert_eq!(liar.asked().len(), 1, "{}", driver.uri);
        assert!(SystemClock.now() - started < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn refused_credentials_are_said_at_once_and_without_secrets() {
    for driver in &DRIVERS {
        for status in ["401 Unauthorized", "403 Forbidden"] {
            let liar = Liar::start(move |_, _| {
                let words =
                    b"<Error><Message>said of hunter2, tok3n and aHVudGVyMg==</Message></Error>";
                told(status, &[], words)
            });
            let liar = liar.await;
            let storage = driver.open(&liar).await;
            let errors = [
                read(&*storage, b"k", &v1(), whole()).await.unwrap_err(),
                list(&*storage, b"").await.unwrap_err(),
                stat(&*storage, b"k").await.unwrap_err(),
            ];
            for error in errors {
                let text = format!("{error} {error:?} {storage:?} {}", storage.uri());
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{text}");
                for (name, secret) in driver.options {
                    let shown = ufs::SECRET_OPTIONS[1..].contains(name) && text.contains(secret);
                    assert!(!shown, "{text}");
                }
            }
            assert_eq!(liar.asked().len(), 3, "{}: not sent again", driver.uri);
        }
    }
}

#[tokio::test]
async fn only_a_404_makes_a_name_absent() {
    for driver in all_drivers() {
        for (status, kind) in [
            ("403 Forbidden", ErrorKind::PermissionDenied),
            ("400 Bad Request", ErrorKind::Invalid),
            ("500 Internal Server Error", ErrorKind::Unavailable),
            ("503 Service Unavailable", ErrorKind::Unavailable),
        ] {
            let liar = Liar::start(move |_, _| told(status, &[], b"")).await;
            let deadline = SystemClock.deadline(Duration::from_millis(200));
            let path = ObjectPath::parse(b"k").unwrap();
            let storage = driver.open(&liar).await;
            let error = storage.stat(&path, deadline).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{}: {error}", driver.uri);
        }
    }
}

#[tokio::test]
async fn a_listing_that_is_cut_or_another_page_is_asked_again_and_never_shown() {
    for driver in all_drivers() {
        let page = driver.page;
        let liar = Liar::start(move |index, asked| {
            if asked.method == "HEAD" {
                return told(
                    "200 OK",
                    &[("ETag", "\"v1\""), ("Content-Length", "1")],
                    b"",
                );
            }
            let whole = told("200 OK", &[], page.as_bytes());
            match index {
                0 => broken(whole, 10, End::Reset),
                1 => told("503 Service Unavailable", &[], b""),
                _ => whole,
            }
        });
        let liar = liar.await;
        let storage = driver.open(&liar).await;
        let (entries, unshowable) = list(&*storage, b"").await.unwrap();
        assert_eq!((entries.len(), unshowable), (2, 0), "{}", driver.uri);
        // A page of a door that asks for a login is no listing.
        let login = Liar::start(|_, _| told("200 OK", &[], b"<html>please log in</html>")).await;
        list(&*driver.open(&login).await, b"").await.unwrap_err();
    }
}

#[tokio::test]
async fn a_listing_that_goes_in_circles_ends_with_an_error() {
    for driver in &DRIVERS {
        let Some(circle) = driver.circle else {
            continue;
        };
        for period in [1, 2, 7] {
            let liar = Liar::start(move |index, _| {
                // A few pages lead into the circle.
                circle(if index < 3 {
                    index + 100
                } else {
                    index % period
                })
            });
            let liar = liar.await;
            let error = list(&*driver.open(&liar).await, b"dir").await.unwrap_err();
            assert!(
                error.to_string().contains("same page"),
                "{}: {error}",
                driver.uri
            );
            assert!(liar.asked().len() < 40, "{period}: {}", liar.asked().len());
        }
    }
}

#[tokio::test]
async fn a_dropped_read_gives_its_connection_back() {
    for driver in &DRIVERS {
        let liar = Liar::start(|_, asked| broken(honest(asked, "v1"), 20, End::Silence)).await;
        let storage = driver.open(&liar).await;
        let path = ObjectPath::parse(b"k").unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(20));
        // More than the four connections that there are.
        for _ in 0..6 {
            let mut stream = storage.read(&path, &v1(), whole(), deadline).await.unwrap();
            assert_eq!(stream.next().await.unwrap().unwrap().len(), 16);
        }
        assert_eq!(liar.asked().len(), 6, "{}", driver.uri);
    }
}
