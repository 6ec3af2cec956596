// SPDX-License-Identifier: Apache-2.0
//! A real S3 server over a directory: Versity Gateway.

use std::time::Duration;

use testkit::rigs::VersityGw;
use types::{ByteRange, Clock, ErrorKind, SystemClock};
use ufs::conformance::{self, Fixture, read, stat};
use ufs::probe;

use crate::bad_way;
use crate::s3_bucket::{self, Bucket, Keeps};
use crate::wire::counts_every_request;

async fn bucket(prefix: &str) -> Bucket {
    let keeps = Keeps {
        // It writes control characters wrongly into listings: they are tested in `s3_names`.
        odd_names: conformance::odd_names()
            .into_iter()
            .filter(|name| !name.iter().any(u8::is_ascii_control))
            .collect(),
        // Its names are those of a file system.
        flat_names: &[],
        many: Keeps::many_at(prefix),
    };
    Bucket::start(VersityGw::start, &format!("bucket/{prefix}"), keeps).await
}

#[tokio::test]
async fn a_bucket_keeps_every_promise() {
    conformance::run(&bucket("").await).await;
}

#[tokio::test]
async fn a_prefix_of_a_bucket_keeps_every_promise() {
    conformance::run(&bucket("a prefix/of +it").await).await;
}

#[tokio::test]
async fn a_bucket_keeps_every_promise_of_writing() {
    conformance::write::run(&bucket("").await).await;
}

#[tokio::test]
async fn a_prefix_of_a_bucket_keeps_every_promise_of_writing() {
    conformance::write::run(&bucket("a prefix/of +it").await).await;
}

#[tokio::test]
async fn uploads_that_never_ended_are_given_up() {
    s3_bucket::gives_up_old_uploads(&bucket("a prefix").await).await;
}

#[tokio::test]
async fn every_request_on_the_wire_is_counted() {
    let bucket = bucket("").await;
    counts_every_request(&bucket, &bucket.relay).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_mount_is_said_by_the_probe() {
    s3_bucket::says_what_is_wrong_with_a_mount(&bucket("").await).await;
}

#[tokio::test]
async fn a_storage_that_is_off_or_silent_fails_in_time_and_is_used_again_after() {
    s3_bucket::fails_in_time_and_is_used_again(&bucket("").await).await;
}

#[tokio::test]
async fn a_bad_way_is_withstood() {
    let bucket = bucket("").await;
    bad_way::is_withstood(&bucket, &bucket.relay).await;
}

#[tokio::test]
async fn an_answer_that_is_cut_is_resumed_where_it_broke() {
    s3_bucket::resumes_where_an_answer_was_cut(&bucket("").await).await;
}

#[tokio::test]
async fn a_machine_whose_clock_is_wrong_uses_it_all_the_same() {
    s3_bucket::is_used_by_a_machine_whose_clock_is_wrong(&bucket("").await).await;
}

#[tokio::test]
async fn keys_that_replaced_wrong_ones_are_used() {
    s3_bucket::uses_keys_that_replaced_wrong_ones(&bucket("").await).await;
}

#[tokio::test]
async fn all_buckets_are_directories() {
    s3_bucket::shows_all_buckets(&bucket("").await).await;
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_is_said_at_once() {
    let bucket = bucket("").await;
    bucket.relay.switch_off();
    for endpoint in [bucket.relay.endpoint(), "http://no-such-host.invalid"] {
        let elsewhere = [("endpoint", endpoint)];
        let storage = bucket
            .account
            .open("s3://bucket", &elsewhere)
            .await
            .unwrap();
        let started = SystemClock.now();
        let deadline = SystemClock.deadline(Duration::from_secs(60));
        let error = probe(&*storage, deadline).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(
            error
                .to_string()
                .contains(&format!("check that {endpoint} is right and up"))
        );
        assert!(
            SystemClock.now() - started < Duration::from_secs(30),
            "{error}"
        );
    }
}

#[tokio::test]
async fn latency_and_bandwidth_of_the_relay_are_what_was_set() {
    let bucket = bucket("").await;
    bucket.put(b"object", &vec![7; 8_000_000]).await;
    let tag = stat(&*bucket.storage, b"object").await.unwrap().tag;
    bucket.relay.set_latency(Duration::from_millis(40));
    let started = SystemClock.now();
    for _ in 0..5 {
        stat(&*bucket.storage, b"object").await.unwrap();
    }
    let each = (SystemClock.now() - started) / 5;
    assert!(
        each >= Duration::from_millis(40) && each < Duration::from_millis(80),
        "{each:?}"
    );
    bucket.relay.set_bandwidth(Some(20_000_000));
    let started = SystemClock.now();
    let half = ByteRange::new(0, 4_000_000);
    let rest = ByteRange::new(4_000_000, 4_000_000);
    let (one, other) = futures::join!(
        read(&*bucket.storage, b"object", &tag, half),
        read(&*bucket.storage, b"object", &tag, rest)
    );
    assert_eq!(
        (one.unwrap().len(), other.unwrap().len()),
        (4_000_000, 4_000_000)
    );
    let took = (SystemClock.now() - started).as_secs_f64();
    assert!((0.4..0.8).contains(&took), "8 MB at 20 MB/s took {took} s");
}
