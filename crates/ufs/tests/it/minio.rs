// SPDX-License-Identifier: Apache-2.0
//! A second real S3 server: MinIO. The same promises as in `s3`.

use testkit::rigs::Minio;
use ufs::conformance::{self, Flat};

use crate::bad_way;
use crate::s3_bucket::{self, Bucket, Keeps};
use crate::wire::counts_every_request;

async fn bucket(prefix: &str) -> Bucket {
    let keeps = Keeps {
        odd_names: conformance::odd_names(),
        // It refuses two slashes in a row, and of an object and a prefix of one name it lists the
        // object alone.
        flat_names: &[Flat::Mark],
        many: Keeps::many_at(prefix),
    };
    Bucket::start(Minio::start, &format!("bucket/{prefix}"), keeps).await
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
