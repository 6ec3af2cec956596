// SPDX-License-Identifier: Apache-2.0
//! The rows of peers, without peers.

use super::*;

fn report() -> Report {
    let setting = Setting {
        latency_ms: 15,
        bandwidth_bytes: 200_000_000,
        large_bytes: 1 << 20,
        small_count: 10,
        small_bytes: 1 << 10,
        repeats: 1,
    };
    let mut report = Report::new(Machine::here("1".into()), setting);
    report.contestant("forebay", "0.1.0", "forebay mount s3://data MNT");
    report.contestant("s3fs", "1.90", "s3fs data MNT");
    report.absent("geesefs", "it is not installed");
    figure(&mut report, &PLANS[0], "forebay", Figure::Value(200.0));
    figure(&mut report, &PLANS[0], "s3fs", Figure::Value(50.0));
    figure(&mut report, &PLANS[1], "forebay", Figure::Value(1500.0));
    let wrong = Figure::Failed("wrong bytes in <a>".into());
    figure(&mut report, &PLANS[1], "s3fs", wrong);
    report
}

#[test]
fn rows_of_peers_are_read_back_as_they_were_written() {
    let written = serde_json::to_string(&report()).unwrap();
    let read: Report = serde_json::from_str(&written).unwrap();
    assert_eq!(read.rows.len(), 2);
    assert_eq!(read.rows[0].figures["s3fs"], Figure::Value(50.0));
    assert_eq!(serde_json::to_string(&read).unwrap(), written);
}

#[test]
fn who_is_missing_or_fails_is_named_with_the_reason() {
    let table = report().table();
    assert!(
        table.contains("geesefs is not in it: it is not installed"),
        "{table}"
    );
    assert!(
        table.contains("s3fs, cold epoch, small files: wrong bytes"),
        "{table}"
    );
    let error = programs::in_path("no-such-file-system").unwrap_err();
    assert!(error.to_string().contains("is not installed"), "{error}");
}

#[test]
fn the_picture_has_a_bar_for_each_figure() {
    let picture = plot::svg(&report());
    assert_eq!(picture.matches("height=\"14\"").count(), 4, "{picture}");
    assert!(roughly_balanced(&picture), "{picture}");
}

fn roughly_balanced(picture: &str) -> bool {
    let opened = picture.matches("<text").count() + picture.matches("<svg").count();
    opened == picture.matches("</").count()
}
