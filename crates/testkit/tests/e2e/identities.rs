// SPDX-License-Identifier: Apache-2.0
//! Who the daemon is, on a machine whose keys end and whose clock is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqsign_core::time::Timestamp;
use testkit::data;
use testkit::rigs::{Asked, Scripted, Told, told};
use testkit::sandbox::Sandbox;
use testkit::storage::Storage;

/// How far the clocks of the services are behind that of this machine.
const BEHIND: Duration = Duration::from_secs(7200);
const LEN: usize = 300_000;

fn their_time() -> Timestamp {
    Timestamp::now() - BEHIND
}

/// Answers as the instance metadata service: the keys of the day, good for an hour.
fn instance(asked: &Asked, day: usize) -> Told {
    let date = their_time().format_http_date();
    let dated = [("Date", date.as_str())];
    if asked.method == "PUT" {
        return told("200 OK", &dated, b"t0ken");
    }
    if asked.header("x-aws-ec2-metadata-token") != "t0ken" {
        return told("401 Unauthorized", &dated, b"");
    }
    if asked.target.ends_with('/') {
        return told("200 OK", &dated, b"role");
    }
    let end = (their_time() + Duration::from_secs(3600)).format_rfc3339_zulu();
    let keys = format!(
        "{{\"Code\":\"Success\",\"AccessKeyId\":\"DAY{day}\",\"SecretAccessKey\":\"hush\",\
         \"Token\":\"passing\",\"Expiration\":\"{end}\"}}"
    );
    told("200 OK", &dated, keys.as_bytes())
}

/// Answers as a bucket with two objects, to who shows the keys of the day at the right time.
fn bucket(asked: &Asked, day: usize) -> Told {
    let date = their_time().format_http_date();
    let refused = |code: &str| {
        let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
        told("403 Forbidden", &[("Date", &date)], body.as_bytes())
    };
    let off = Duration::from_secs(900);
    let [first, last] = [their_time() - off, their_time() + off].map(Timestamp::format_iso8601);
    let signed = asked.header("x-amz-date");
    if signed < first.as_str() || signed > last.as_str() {
        return refused("RequestTimeTooSkewed");
    }
    let keys = format!("Credential=DAY{day}/");
    if !asked.header("authorization").contains(&keys) {
        return refused("ExpiredToken");
    }
    if asked.target.contains("list-type") {
        let objects = ["a", "b"].map(|name| {
            format!(
                "<Contents><Key>{name}</Key><Size>{LEN}</Size><ETag>\"v1\"</ETag><LastModified>\
                 2024-01-01T00:00:00Z</LastModified></Contents>"
            )
        });
        let page = format!("<ListBucketResult>{}</ListBucketResult>", objects.concat());
        return told("200 OK", &[("Date", &date)], page.as_bytes());
    }
    let seed = if asked.target.contains("/a") { 1 } else { 2 };
    let (content, length) = (data::bytes(seed, LEN), LEN.to_string());
    let mut headers = vec![("Date", date.as_str()), ("ETag", "\"v1\"")];
    if asked.method == "HEAD" {
        headers.push(("Content-Length", &length));
        return told("200 OK", &headers, b"");
    }
    let (first, last) = asked.range();
    let range = format!("bytes {first}-{last}/{LEN}");
    headers.push(("Content-Range", &range));
    told("206 Partial Content", &headers, &content[first..=last])
}

/// Two processes read files that nobody has read, so that both are refused with the old keys.
#[test]
fn keys_in_a_file_that_end_are_read_again_without_a_new_mount() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let day = Arc::new(AtomicUsize::new(1));
    let today = Arc::clone(&day);
    let storage = Scripted::start(move |_, asked| bucket(asked, today.load(Ordering::SeqCst)));
    let storage = runtime.block_on(storage);
    let local = Storage::local();
    let sandbox = Sandbox::new(&local);
    let file = sandbox.dir().join("keys");
    let replace = |day: usize| {
        let keys = format!("access_key_id = DAY{day}\nsecret_access_key = hunter{day}\n");
        let new = file.with_extension("new");
        std::fs::write(&new, keys).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    replace(1);
    let mount = sandbox
        .mount(&local)
        .uri("s3://data")
        .flag("--endpoint", storage.endpoint())
        .flag("--region", "us-east-1")
        .flag("--credentials", &format!("file:{}", file.display()))
        .switch("--read-only")
        .start();
    day.store(2, Ordering::SeqCst);
    let refused = std::fs::read(mount.path("a")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EACCES), "{refused}");
    replace(2);
    std::thread::scope(|scope| {
        for (name, seed) in [("a", 1), ("b", 2)] {
            let mount = &mount;
            scope.spawn(move || assert_eq!(data::check(seed, 0, &mount.read(name)), Ok(())));
        }
    });
    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    let status = sandbox.run(&["status", "--json"]).success();
    assert!(
        !log.contains("hunter") && !status.contains("hunter"),
        "{log}"
    );
    mount.unmount();
}

#[test]
fn keys_of_an_instance_that_end_are_renewed_without_a_new_mount_though_the_clock_is_wrong() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let day = Arc::new(AtomicUsize::new(1));
    let today = |day: &Arc<AtomicUsize>| {
        let day = Arc::clone(day);
        move || day.load(Ordering::SeqCst)
    };
    let (of_keys, of_bucket) = (today(&day), today(&day));
    let metadata = Scripted::start(move |_, asked| instance(asked, of_keys()));
    let metadata = runtime.block_on(metadata);
    let storage = Scripted::start(move |_, asked| bucket(asked, of_bucket()));
    let storage = runtime.block_on(storage);
    let local = Storage::local();
    let sandbox = Sandbox::new(&local)
        .with_variable("AWS_EC2_METADATA_DISABLED", "false")
        .with_variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.endpoint());
    let mount = sandbox
        .mount(&local)
        .uri("s3://data")
        .flag("--endpoint", storage.endpoint())
        .flag("--region", "us-east-1")
        .switch("--read-only")
        .start();
    assert_eq!(data::check(1, 0, &mount.read("a")), Ok(()));
    let asked = metadata.asked().len();
    day.store(2, Ordering::SeqCst);
    assert_eq!(data::check(2, 0, &mount.read("b")), Ok(()));
    assert!(metadata.asked().len() > asked, "other keys were asked for");
    mount.unmount();
}
