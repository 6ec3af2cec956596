// SPDX-License-Identifier: Apache-2.0
//! Writes to an S3 storage that fails and lies: what is acknowledged is stored, what others wrote
//! stays, and a lost answer is no second write.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use types::{Clock, Deadline, ErrorKind, ObjectMeta, ObjectPath, Result, SystemClock, VersionTag};
use ufs::{Expect, FileAttributes, UnderStorage};

use crate::liar::{Asked, End, Liar, Told, refused, told, v1};

const MARK: &str = "x-amz-meta-forebay-write";
const GIB: u64 = 1 << 30;

fn soon() -> Deadline {
    SystemClock.deadline(Duration::from_secs(10))
}

fn path(name: &str) -> ObjectPath {
    ObjectPath::parse(name.as_bytes()).unwrap()
}

async fn put(storage: &dyn UnderStorage, expect: Expect) -> Result<ObjectMeta> {
    let (bytes, nothing) = (Bytes::from_static(b"12345"), FileAttributes::default());
    let writer = storage.writer().unwrap();
    writer
        .put(&path("k"), bytes, &expect, &nothing, soon())
        .await
}

/// Sends an object of two parts.
async fn send_parts(storage: &dyn UnderStorage, expect: Expect) -> Result<ObjectMeta> {
    let (writer, nothing) = (storage.writer().unwrap(), FileAttributes::default());
    let upload = writer.begin(&path("k"), 5 << 20, &nothing, soon()).await?;
    for number in [2, 1] {
        upload
            .part(number, Bytes::from_static(b"12345"), soon())
            .await?;
    }
    upload.complete(&expect, soon()).await
}

/// Takes bytes, and tells their checksum as AWS does.
fn took(asked: &Asked) -> Told {
    let checksum = asked.header("x-amz-checksum-crc32c");
    let headers = [("ETag", "\"new\""), ("x-amz-checksum-crc32c", checksum)];
    told("200 OK", &headers, b"")
}

/// Tells an object of this size, with this mark.
fn seen(etag: &str, mark: &str, size: u64) -> Told {
    let (size, etag) = (size.to_string(), format!("\"{etag}\""));
    let headers = [
        ("ETag", etag.as_str()),
        ("Content-Length", &size),
        (MARK, mark),
    ];
    told("200 OK", &headers, b"")
}

fn begun() -> Told {
    let root = "InitiateMultipartUploadResult";
    let body = format!("<{root}><UploadId>u/1</UploadId></{root}>");
    told("200 OK", &[], body.as_bytes())
}

fn completed() -> Told {
    let root = "CompleteMultipartUploadResult";
    let body = format!("  \n<{root}><ETag>\"new-2\"</ETag></{root}>");
    told("200 OK", &[], body.as_bytes())
}

fn absent() -> Told {
    told("404 Not Found", &[], b"")
}

fn lost() -> Told {
    Told {
        bytes: Vec::new(),
        end: End::Reset,
    }
}

/// What a request is, in a word.
fn what(asked: &Asked) -> &'static str {
    let is = |part: &str| asked.target.contains(part);
    let copies = asked.headers.contains_key("x-amz-copy-source");
    match asked.method.as_str() {
        "HEAD" => "look",
        "POST" if is("uploads=") => "begin",
        "POST" => "complete",
        "PUT" if copies && is("partNumber=") => "copy part",
        "PUT" if copies => "copy",
        "PUT" if is("partNumber=") => "part",
        "PUT" => "put",
        "DELETE" if is("uploadId=") => "abort",
        "DELETE" => "delete",
        _ => "else",
    }
}

fn asked_for(liar: &Liar) -> Vec<&'static str> {
    liar.asked().iter().map(what).collect()
}

#[tokio::test]
async fn conditions_and_checksums_go_with_the_bytes() {
    let liar = Liar::start(|_, asked| took(asked)).await;
    let storage = liar.open().await;
    put(&*storage, Expect::Anything).await.unwrap();
    let made = put(&*storage, Expect::Absent).await.unwrap();
    assert_eq!((made.tag.etag.as_deref(), made.tag.size), (Some("new"), 5));
    put(&*storage, Expect::Version(v1(36))).await.unwrap();
    let asked = liar.asked();
    assert_eq!(asked.len(), 3, "one request each");
    let headers = |name: &'static str| -> Vec<&str> {
        asked.iter().map(|asked| asked.header(name)).collect()
    };
    assert_eq!(headers("if-none-match"), ["", "*", ""]);
    assert_eq!(headers("if-match"), ["", "", "\"v1\""]);
    // CRC32C of the bytes; MD5 only until the storage has shown that it knows the other.
    assert_eq!(headers("x-amz-checksum-crc32c"), ["GNEjNQ=="; 3]);
    assert_eq!(headers("content-md5"), ["gnzLDuqKcGxMNKFokfhOew==", "", ""]);
    assert!(asked.iter().all(|asked| asked.body == b"12345"));
    let marks = headers(MARK);
    assert!(marks.iter().all(|mark| mark.len() == 32) && marks[0] != marks[1]);
}

#[tokio::test]
async fn a_storage_that_repeats_no_checksum_gets_another_with_each_write() {
    let liar = Liar::start(|_, _| told("200 OK", &[("ETag", "\"new\"")], b"")).await;
    let storage = liar.open().await;
    for _ in 0..2 {
        put(&*storage, Expect::Anything).await.unwrap();
    }
    let sent = |asked: &Asked| asked.header("content-md5") == "gnzLDuqKcGxMNKFokfhOew==";
    assert!(liar.asked().iter().all(sent));
}

#[tokio::test]
async fn bytes_that_arrived_changed_are_sent_again() {
    let liar = Liar::start(|index, asked| match index {
        0 => told(
            "200 OK",
            &[("ETag", "\"bad\""), ("x-amz-checksum-crc32c", "AAAAAA==")],
            b"",
        ),
        1 => refused("400 Bad Request", "BadDigest", "no"),
        _ => took(asked),
    });
    let liar = liar.await;
    let made = put(&*liar.open().await, Expect::Anything).await.unwrap();
    assert_eq!(made.tag.etag.as_deref(), Some("new"));
    assert_eq!(asked_for(&liar), ["put"; 3]);
}

#[tokio::test]
async fn an_own_success_whose_answer_was_lost_is_told_from_a_change_by_others() {
    for (expect, kind) in [
        (Expect::Absent, ErrorKind::AlreadyExists),
        (Expect::Version(v1(36)), ErrorKind::Stale),
    ] {
        for is_own in [true, false] {
            let mark = Arc::new(Mutex::new(String::new()));
            let liar = Liar::start(move |index, asked| match (index, is_own) {
                (0, _) => {
                    *mark.lock().unwrap() = asked.header(MARK).into();
                    lost()
                }
                (1, _) => refused("412 Precondition Failed", "PreconditionFailed", "no"),
                (_, true) => seen("own", &mark.lock().unwrap(), 5),
                (_, false) => seen("others", "another", 5),
            });
            let liar = liar.await;
            let put = put(&*liar.open().await, expect.clone()).await;
            match put {
                Ok(made) => assert_eq!((is_own, made.tag.etag.as_deref()), (true, Some("own"))),
                Err(error) => assert_eq!((is_own, error.kind()), (false, kind), "{error}"),
            }
            // That a version did not match is believed only after a look.
            let looks = 1 + usize::from(expect != Expect::Absent);
            let wanted = [&["put"; 2][..], &["look"; 2][..looks]].concat();
            assert_eq!(asked_for(&liar), wanted);
        }
    }
}

#[tokio::test]
async fn a_condition_that_did_not_hold_at_once_is_not_asked_about() {
    let liar = Liar::start(|_, _| refused("412 Precondition Failed", "PreconditionFailed", "no"));
    let liar = liar.await;
    let error = put(&*liar.open().await, Expect::Absent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(asked_for(&liar), ["put"]);
}

#[tokio::test]
async fn a_storage_that_compares_tags_letter_by_letter_gets_them_without_quotes() {
    let liar = Liar::start(|_, asked| match (what(asked), asked.header("if-match")) {
        ("look", _) => seen("v1", "another", 36),
        (_, "v1") => took(asked),
        _ => refused("412 Precondition Failed", "PreconditionFailed", "no"),
    });
    let liar = liar.await;
    let storage = liar.open().await;
    for _ in 0..2 {
        put(&*storage, Expect::Version(v1(36))).await.unwrap();
    }
    assert_eq!(asked_for(&liar), ["put", "look", "put", "put"]);
}

#[tokio::test]
async fn a_busy_storage_gets_the_same_write_again() {
    let liar = Liar::start(|index, asked| match index {
        0 => refused("503 Service Unavailable", "SlowDown", "later"),
        1 => refused(
            "409 Conflict",
            "ConditionalRequestConflict",
            "another write",
        ),
        _ => took(asked),
    });
    let liar = liar.await;
    let storage = liar.open().await;
    put(&*storage, Expect::Anything).await.unwrap();
    let marks: Vec<_> = liar
        .asked()
        .iter()
        .map(|asked| asked.header(MARK).to_owned())
        .collect();
    assert_eq!(marks.len(), 3);
    assert!(marks.iter().all(|mark| *mark == marks[0]));
    let counts = storage.counters().snapshot();
    assert_eq!(
        (counts.put, counts.retries, counts.bytes_written),
        (3, 2, 5)
    );
}

#[tokio::test]
async fn parts_become_an_object_with_their_checksums_in_order() {
    let liar = Liar::start(|_, asked| match what(asked) {
        "begin" => begun(),
        "part" => took(asked),
        "look" => absent(),
        _ => completed(),
    });
    let liar = liar.await;
    let made = send_parts(&*liar.open().await, Expect::Absent)
        .await
        .unwrap();
    assert_eq!(
        (made.tag.etag.as_deref(), made.tag.size),
        (Some("new-2"), 10)
    );
    assert_eq!(
        asked_for(&liar),
        ["begin", "part", "part", "look", "complete"]
    );
    let asked = liar.asked();
    assert_eq!(asked[0].header("x-amz-checksum-algorithm"), "CRC32C");
    assert!(
        asked[1].target.ends_with("?partNumber=2&uploadId=u%2F1"),
        "{}",
        asked[1].target
    );
    assert_eq!(asked[4].header("if-none-match"), "*");
    let checksum = asked[1].header("x-amz-checksum-crc32c");
    let part = |number| {
        format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>&quot;new&quot;</ETag>\
             <ChecksumCRC32C>{checksum}</ChecksumCRC32C></Part>"
        )
    };
    let root = "CompleteMultipartUpload";
    let list = format!("<{root}>{}{}</{root}>", part(1), part(2));
    assert_eq!(String::from_utf8(asked[4].body.clone()).unwrap(), list);
}

#[tokio::test]
async fn an_error_inside_of_a_success_is_an_error() {
    let error = |code: &str| {
        let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        told("200 OK", &[], body.as_bytes())
    };
    let liar = Liar::start(move |index, asked| match (what(asked), index) {
        ("begin", _) => begun(),
        ("part", _) => took(asked),
        ("look", _) => absent(),
        // An error that may pass, an answer that is cut, and one that stays.
        (_, 3) => error("InternalError"),
        (_, 4) => told("200 OK", &[], b"<CompleteMultipartUploadResult><ETag>"),
        _ => error("InvalidPart"),
    });
    let liar = liar.await;
    let storage = liar.open().await;
    let error = send_parts(&*storage, Expect::Anything).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    let completes = asked_for(&liar)
        .iter()
        .filter(|what| **what == "complete")
        .count();
    assert_eq!(completes, 3);
}

#[tokio::test]
async fn an_upload_that_is_gone_was_completed_if_the_object_has_its_mark() {
    for is_own in [true, false] {
        let mark = Arc::new(Mutex::new(String::new()));
        let liar = Liar::start(move |index, asked| match what(asked) {
            "begin" => {
                *mark.lock().unwrap() = asked.header(MARK).into();
                begun()
            }
            "part" => took(asked),
            "look" if is_own => seen("own-2", &mark.lock().unwrap(), 10),
            "look" => seen("others", "another", 10),
            _ if index == 3 => lost(),
            _ => refused("404 Not Found", "NoSuchUpload", "gone"),
        });
        let liar = liar.await;
        let sent = send_parts(&*liar.open().await, Expect::Anything).await;
        match sent {
            Ok(made) => assert_eq!((is_own, made.tag.etag.as_deref()), (true, Some("own-2"))),
            Err(error) => assert_eq!((is_own, error.kind()), (false, ErrorKind::Busy), "{error}"),
        }
    }
}

#[tokio::test]
async fn what_is_too_large_for_one_copy_is_copied_in_parts() {
    let size = 6 * GIB + 5;
    for fails in [false, true] {
        let liar = Liar::start(move |_, asked| match what(asked) {
            "look" if asked.target.ends_with("/from") => seen("v1", "first", size),
            "look" => absent(),
            "begin" => begun(),
            "copy part" if fails && asked.target.contains("partNumber=7&") => {
                refused("412 Precondition Failed", "PreconditionFailed", "changed")
            }
            "copy part" => told(
                "200 OK",
                &[],
                b"<CopyPartResult><ETag>\"p\"</ETag></CopyPartResult>",
            ),
            "abort" => told("204 No Content", &[], b""),
            _ => completed(),
        });
        let liar = liar.await;
        let storage = liar.open().await;
        let tag = VersionTag { size, ..v1(0) };
        let writer = storage.writer().unwrap();
        let (from, to) = (path("from"), path("to"));
        let copied = writer.copy(&from, &tag, &to, &Expect::Absent, soon()).await;
        let parts: Vec<_> = liar.asked();
        let parts: Vec<_> = parts
            .iter()
            .filter(|asked| what(asked) == "copy part")
            .collect();
        assert!(
            parts
                .iter()
                .all(|asked| asked.header("x-amz-copy-source-if-match") == "\"v1\"")
        );
        if fails {
            assert_eq!(copied.unwrap_err().kind(), ErrorKind::Stale);
            assert_eq!(asked_for(&liar).last(), Some(&"abort"));
            continue;
        }
        assert_eq!(copied.unwrap().tag.size, size);
        assert_eq!(parts.len(), 13);
        let last = format!("bytes={}-{}", 12 * (GIB / 2), size - 1);
        let ranges: Vec<_> = parts
            .iter()
            .map(|asked| asked.header("x-amz-copy-source-range"))
            .collect();
        assert!(ranges.contains(&"bytes=0-536870911") && ranges.contains(&last.as_str()));
    }
}

#[tokio::test]
async fn a_change_of_attributes_keeps_what_others_told_of_the_object() {
    let liar = Liar::start(|_, asked| match what(asked) {
        "look" => told(
            "200 OK",
            &[
                ("ETag", "\"v1\""),
                ("Content-Length", "36"),
                ("Content-Type", "image/png"),
                ("x-amz-storage-class", "GLACIER_IR"),
                ("x-amz-meta-author", "somebody"),
                ("x-amz-meta-mtime", "1400000000"),
            ],
            b"",
        ),
        _ => told(
            "200 OK",
            &[],
            b"<CopyObjectResult><ETag>\"v2\"</ETag></CopyObjectResult>",
        ),
    });
    let liar = liar.await;
    let storage = liar.open().await;
    let owner = types::meta::Owner {
        mode: 0o640,
        uid: 7,
        gid: 8,
    };
    let attributes = FileAttributes {
        owner: Some(owner),
        mtime_ns: None,
        xattrs: None,
    };
    let writer = storage.writer().unwrap();
    let set = writer
        .set_attributes(&path("k"), &v1(36), &attributes, soon())
        .await
        .unwrap();
    assert_eq!(set.tag.etag.as_deref(), Some("v2"));
    assert_eq!(
        (set.owner, set.tag.mtime_ns),
        (Some(owner), 1_400_000_000_000_000_000)
    );
    let asked = liar.asked();
    assert_eq!(asked_for(&liar), ["look", "copy"]);
    for (name, value) in [
        ("x-amz-metadata-directive", "REPLACE"),
        ("x-amz-copy-source", "/b/k"),
        ("x-amz-copy-source-if-match", "\"v1\""),
        ("content-type", "image/png"),
        ("x-amz-storage-class", "GLACIER_IR"),
        ("x-amz-meta-author", "somebody"),
        ("x-amz-meta-mode", "33184"),
        ("x-amz-meta-uid", "7"),
        ("x-amz-meta-gid", "8"),
        ("x-amz-meta-mtime", "1400000000.000000000"),
    ] {
        assert_eq!(asked[1].header(name), value, "{name}");
    }
}

#[tokio::test]
async fn only_uploads_that_are_old_enough_are_given_up() {
    let liar = Liar::start(|index, asked| {
        match (what(asked), index) {
        ("abort", _) => told("204 No Content", &[], b""),
        (_, 0) => told(
            "200 OK",
            &[],
            b"<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>\
              <NextKeyMarker>a b</NextKeyMarker><NextUploadIdMarker>u2</NextUploadIdMarker>\
              <Upload><Key>p/old</Key><UploadId>u1</UploadId><Initiated>2009-10-12T17:50:30Z</Initiated></Upload>\
              <Upload><Key>p/new</Key><UploadId>u2</UploadId><Initiated>2999-10-12T17:50:30Z</Initiated></Upload>\
              <Upload><Key>p/unknown</Key><UploadId>u3</UploadId></Upload></ListMultipartUploadsResult>",
        ),
        _ => told("200 OK", &[], b"<ListMultipartUploadsResult></ListMultipartUploadsResult>"),
    }
    });
    let liar = liar.await;
    let storage = liar.open().await;
    let day = Duration::from_secs(86_400);
    let writer = storage.writer().unwrap();
    assert_eq!(writer.clean(day, soon()).await.unwrap(), 1);
    let targets: Vec<_> = liar.asked().into_iter().map(|asked| asked.target).collect();
    assert_eq!(targets[1], "/b/p/old?uploadId=u1");
    assert!(
        targets[2].ends_with("&key-marker=a%20b&upload-id-marker=u2"),
        "{targets:?}"
    );
    assert_eq!(targets.len(), 3);
}

#[tokio::test]
async fn writes_that_are_not_allowed_say_what_to_do() {
    let liar = Liar::start(|_, _| refused("403 Forbidden", "AccessDenied", "no")).await;
    let storage = liar.open().await;
    let error = put(&*storage, Expect::Anything).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let text = error.to_string();
    assert!(
        text.starts_with("write s3://b/k: ") && text.contains("write to it"),
        "{text}"
    );
    assert_eq!(liar.asked().len(), 1, "not sent again");
}

#[tokio::test]
async fn a_bucket_itself_is_not_written() {
    let liar = Liar::start(|_, _| absent()).await;
    let options = [
        ("endpoint", liar.endpoint()),
        ("access_key_id", "id"),
        ("secret_access_key", "s"),
    ];
    let storage = liar.open_as("s3://*", &options).await.unwrap();
    let error = put(&*storage, Expect::Anything).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(liar.asked().is_empty());
}
