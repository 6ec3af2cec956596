// SPDX-License-Identifier: Apache-2.0
//! The policy of the page store beside the others, on small traces.

use super::*;

const OBJECTS: usize = 4000;

fn ours(trace: &Trace) -> f64 {
    replay(Kind::Forebay, trace).bytes
}

#[test]
fn shuffled_epochs_hit_within_two_points_of_the_best() {
    let traces = traces::all(OBJECTS).into_iter();
    let epochs: Vec<Trace> = traces.filter(|trace| trace.best.is_some()).collect();
    assert!(epochs.len() >= 6);
    for trace in epochs {
        let (ours, best) = (ours(&trace), trace.best.unwrap());
        assert!(ours > best - 0.02, "{}: {ours} of {best}", trace.name);
    }
}

#[test]
fn no_worse_than_s3_fifo_on_any_trace() {
    for trace in traces::all(OBJECTS) {
        let (ours, theirs) = (ours(&trace), replay(Kind::S3Fifo, &trace).bytes);
        // A tenth of a point is what it takes to see that a trace is not of epochs.
        assert!(
            ours >= theirs - 0.001,
            "{}: {ours}, S3-FIFO {theirs}",
            trace.name
        );
    }
}

#[test]
fn nobody_is_better_than_the_optimum() {
    for trace in traces::all(1000) {
        let sizes_are_equal = trace.sizes.iter().all(|size| *size == trace.sizes[0]);
        let optimum = replay(Kind::Belady, &trace).hits;
        for kind in Kind::ALL {
            let hits = replay(kind, &trace).hits;
            assert!(
                hits <= optimum || !sizes_are_equal,
                "{} on {}: {hits}, the optimum is {optimum}",
                kind.name(),
                trace.name
            );
        }
    }
}

#[test]
fn the_textbook_policies_do_what_the_textbook_says() {
    // Two fit. Object 0 is read at once again, then often enough to stay with LRU.
    let trace = Trace {
        name: "by hand".into(),
        sizes: vec![1; 4],
        reads: vec![0, 1, 0, 2, 0, 3, 0, 1],
        capacity: 2,
        counted_from: 0,
        best: None,
    };
    let hits = |kind| replay(kind, &trace).hits * 8.0;
    assert!((hits(Kind::Lru) - 3.0).abs() < 1e-9);
    assert!((hits(Kind::Fifo) - 2.0).abs() < 1e-9);
    assert!((hits(Kind::Belady) - 4.0).abs() < 1e-9);
}

#[test]
fn a_file_of_the_user_is_a_trace() {
    let text = "train/a b.jpg 100\nlabels\t20\n\ntrain/a b.jpg 100\n";
    let trace = Trace::parse("reads.txt", text, None).unwrap();
    assert_eq!(trace.reads, [0, 1, 0]);
    assert_eq!((trace.sizes, trace.capacity), (vec![100, 20], 60));
    for (text, wrong) in [("", "no line"), ("a 5\nb x", "line 2"), ("alone", "line 1")] {
        let error = Trace::parse("reads.txt", text, None).unwrap_err();
        assert!(format!("{error:#}").contains(wrong), "{error:#}");
    }
}

#[test]
fn the_page_store_hits_what_fits() {
    let half = store::epochs((1, 2)).unwrap();
    assert!(half.hits >= 0.49, "{half:?}");
    let most = store::epochs((3, 4)).unwrap();
    assert!(most.hits >= 0.73, "{most:?}");
}

#[test]
fn the_table_has_a_row_for_each_trace() {
    let report = run_one(&traces::scan(500));
    let table = report.table();
    assert!(table.contains("a long scan"), "{table}");
    assert!(
        serde_json::to_string(&report)
            .unwrap()
            .contains("two-random")
    );
}
