// SPDX-License-Identifier: Apache-2.0
//! Traces of requests, as a real collector takes them, and what becomes of a mount whose collector is
//! away.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use testkit::data;
use testkit::rigs::{Collector, Fault, Span};
use testkit::sandbox::{Mount, Mounting, Sandbox};
use testkit::storage::Storage;
use testkit::wait;

const LEN: usize = 300_000;

fn collector(sandbox: &Sandbox) -> Collector {
    Collector::start(&sandbox.dir().join("collector")).unwrap()
}

/// A mount that sends a part of its traces to an address.
fn traced<'a>(mounting: Mounting<'a>, address: &str, part: &str) -> Mount<'a> {
    mounting
        .flag("--traces", address)
        .flag("--traces-ratio", part)
        .start()
}

/// Returns all spans, once a root as wanted is there and spans of these names are in its trace: they
/// come in the order in which they end.
#[track_caller]
fn once(
    collector: &Collector,
    is_wanted: impl Fn(&Span) -> bool,
    names: &[(&str, usize)],
) -> Vec<Span> {
    let mut spans = Vec::new();
    let is_there = wait::holds_within(wait::PATIENCE, || {
        spans = collector.spans().unwrap();
        let Some(root) = spans.iter().find(|span| is_wanted(span)) else {
            return false;
        };
        let of_trace = |name: &str| {
            let all = spans.iter().filter(|span| span.trace == root.trace);
            all.filter(|span| span.name == name).count()
        };
        names.iter().all(|(name, count)| of_trace(name) >= *count)
    });
    assert!(is_there, "no such trace: {spans:#?}");
    spans
}

/// A request of the storage driver for the bytes of an object.
fn gets(span: &Span, name: &str) -> bool {
    let path = span.attributes.get("url.path");
    span.name == "GET" && path.is_some_and(|path| path.ends_with(&format!("/{name}")))
}

/// The request of the kernel that opened a file.
fn opens(span: &Span, path: &str) -> bool {
    span.name == "open" && span.attributes.get("path").is_some_and(|is| is == path)
}

#[track_caller]
fn parent<'a>(spans: &'a [Span], of: &Span) -> &'a Span {
    let found = spans
        .iter()
        .find(|span| (&span.trace, &span.id) == (&of.trace, &of.parent));
    let parent = found.unwrap_or_else(|| panic!("no parent of {of:?}"));
    let (outer, inner) = (parent.time, of.time);
    assert!(
        outer.0 <= inner.0,
        "it begins before its parent: {of:?} {parent:?}"
    );
    parent
}

/// Checks what is above and beside the only request for the bytes of `/d/file`.
#[track_caller]
fn is_cold_read(spans: &[Span], get: &Span) {
    let fetch = parent(spans, get);
    assert_eq!(fetch.name, "fetch");
    assert_eq!(fetch.attribute("object"), "d/file");
    assert_eq!(fetch.attribute("class"), "demand");
    assert_eq!(
        (fetch.attribute("offset"), fetch.attribute("bytes")),
        ("0", &*LEN.to_string())
    );
    assert!(get.time.1 <= fetch.time.1, "{get:?} {fetch:?}");
    let open = parent(spans, fetch);
    assert!(opens(open, "/d/file"), "{open:?}");
    assert_eq!(open.parent, "", "{open:?}");
    assert_eq!(open.attribute("user.id"), "0");
    let mut names: Vec<_> = spans
        .iter()
        .filter(|span| span.trace == get.trace)
        .collect();
    names.retain(|span| span.name != "fill");
    assert_eq!(names.len(), 3, "{names:#?}");
    for fill in spans.iter().filter(|span| span.name == "fill") {
        assert_eq!(parent(spans, fill).id, fetch.id);
        assert_eq!(fill.attribute("is_cached"), "true");
    }
}

#[test]
fn a_cold_read_is_one_trace_from_the_kernel_to_the_storage_and_a_warm_one_is_none() {
    let storage = Storage::s3();
    storage.put("d/file", 1, LEN);
    storage.put("e/other", 2, LEN);
    let sandbox = Sandbox::new(&storage);
    let collector = collector(&sandbox);
    let mount = traced(sandbox.mount(&storage), &collector.endpoint, "100%");
    mount.read("d/file");
    let names = [("GET", 1), ("fetch", 1), ("fill", 1)];
    once(&collector, |span| opens(span, "/d/file"), &names);
    let mut spans = Vec::new();
    wait::until("all of it is told to be cached", || {
        spans = collector.spans().unwrap();
        let fills = spans.iter().filter(|span| span.name == "fill");
        let filled = fills.map(|fill| fill.attribute("length").parse::<usize>().unwrap());
        filled.sum::<usize>() == LEN
    });

    let [get] = &spans
        .iter()
        .filter(|span| gets(span, "d/file"))
        .collect::<Vec<_>>()[..]
    else {
        panic!("not one GET: {spans:#?}")
    };
    assert!(["200", "206"].contains(&get.attribute("http.response.status_code")));
    assert_eq!(get.attribute("http.response.body.size"), LEN.to_string());
    assert_eq!(get.attribute("http.request.resend_count"), "0");
    let range = get.attribute("http.request.header.range");
    assert_eq!(range, format!("bytes=0-{}", LEN - 1));
    assert_eq!(get.attribute("server.address"), "127.0.0.1");
    assert_eq!(get.attribute("resource.service.name"), "forebay");
    assert_eq!(get.error, None);
    is_cold_read(&spans, get);

    // The look-ups before it listed the directories.
    let list = spans
        .iter()
        .find(|span| span.name == "list" && span.attribute("object") == "d");
    let list = list.unwrap_or_else(|| panic!("no listing: {spans:#?}"));
    assert_eq!(list.attribute("names"), "1");
    let lookup = parent(&spans, list);
    assert_eq!(
        (&*lookup.name, lookup.attribute("path")),
        ("lookup", "/d/file")
    );

    let before = spans.len();
    assert_eq!(data::check(1, 0, &mount.read("d/file")), Ok(()));
    mount.read("e/other");
    let spans = once(&collector, |span| opens(span, "/e/other"), &[("GET", 1)]);
    let of_first = |span: &&Span| {
        span.attributes
            .values()
            .any(|value| value.ends_with("d/file"))
    };
    let told = spans[before..].iter().filter(of_first).count();
    assert_eq!(told, 0, "{spans:#?}");
    let status = mount.status();
    wait::until("all is counted", || {
        mount.status().number("/traces/exported_spans") == collector.spans().unwrap().len() as u64
    });
    assert_eq!(status.number("/traces/dropped_spans"), 0);
    mount.unmount();
}

#[test]
fn a_request_that_is_sent_again_tells_so_and_why() {
    let storage = Storage::s3();
    storage.put("file", 1, LEN);
    let sandbox = Sandbox::new(&storage);
    let collector = collector(&sandbox);
    let mount = traced(sandbox.mount(&storage), &collector.endpoint, "1");
    let is_meant = |head: &str| head.starts_with("get /") && head.contains("/file ");
    storage
        .relay()
        .fail(1, Fault::Refuse(503, "SlowDown"), is_meant);
    mount.read("file");
    let spans = once(
        &collector,
        |span| opens(span, "/file"),
        &[("GET", 2), ("fetch", 1)],
    );
    let mut gets: Vec<_> = spans.iter().filter(|span| gets(span, "file")).collect();
    gets.sort_by_key(|span| span.time);
    let [first, second] = gets[..] else {
        panic!("{gets:#?}")
    };
    assert_eq!(first.attribute("http.response.status_code"), "503");
    let error = first.error.as_deref().unwrap_or_default();
    assert!(error.contains("SlowDown"), "{first:?}");
    assert_eq!(second.attribute("http.request.resend_count"), "1");
    assert_eq!(second.error, None);
    assert_eq!(parent(&spans, first).id, parent(&spans, second).id);
}

#[test]
fn requests_that_fail_are_told_though_no_others_are() {
    let storage = Storage::s3();
    storage.put("d/file", 1, LEN);
    storage.put("e/file", 1, LEN);
    let sandbox = Sandbox::new(&storage);
    let collector = collector(&sandbox);
    let mounting = sandbox.mount(&storage).flag("--deadline", "1s");
    let mount = traced(mounting, &collector.endpoint, "0%");
    mount.read("d/file");
    // Above a half of a second a request is slow, and on a busy machine any may be.
    let told_before = collector.spans().unwrap().len();
    storage.switch_off();
    fs::read_dir(mount.path("e")).unwrap_err();
    let has_failed = |span: &Span| span.parent.is_empty() && span.error.is_some();
    let spans = once(&collector, has_failed, &[("GET", 1)]);
    let failed = spans[told_before..].iter().find(|span| has_failed(span));
    let failed = failed.unwrap_or_else(|| panic!("{spans:#?}"));
    assert_eq!(failed.attribute("path"), "/e");
    let ended: Vec<_> = spans
        .iter()
        .filter(|span| span.trace == failed.trace)
        .collect();
    assert!(ended.iter().any(|span| span.name == "GET"), "{ended:#?}");
    storage.switch_on();
}

#[test]
fn who_waits_for_a_fetch_of_somebody_else_is_linked_to_it() {
    let storage = Storage::s3();
    // Larger than what is fetched whole at open: the reads of a window wait for one request.
    storage.put("large", 1, 12 << 20);
    let sandbox = Sandbox::new(&storage);
    let collector = collector(&sandbox);
    let mount = traced(sandbox.mount(&storage), &collector.endpoint, "100%");
    storage.relay().set_latency(Duration::from_millis(100));
    assert_eq!(data::check(1, 0, &mount.read("large")), Ok(()));
    let is_linked = |span: &Span| span.name == "read" && !span.links.is_empty();
    let spans = once(&collector, is_linked, &[]);
    let read = spans.iter().find(|span| is_linked(span)).unwrap();
    let is_meant = |span: &Span| span.name == "fetch" && read.links.contains(&span.id);
    // The fetch goes on after the reader had what it waited for.
    wait::until("the fetch is told", || {
        let spans = collector.spans().unwrap();
        let fetch = spans.iter().find(|span| is_meant(span));
        fetch.is_some_and(|fetch| fetch.trace != read.trace)
    });
    storage.relay().heal();
}

#[test]
fn what_is_written_is_in_the_trace_of_who_waits_for_it() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let collector = collector(&sandbox);
    let mount = traced(sandbox.mount(&storage), &collector.endpoint, "100%");
    fs::write(mount.path("new"), data::bytes(1, LEN)).unwrap();
    let spans = once(
        &collector,
        |span| span.name == "close",
        &[("PUT", 1), ("store", 1)],
    );
    let put = spans.iter().find(|span| span.name == "PUT");
    let put = put.unwrap_or_else(|| panic!("{spans:#?}"));
    assert_eq!(put.attribute("http.request.body.size"), LEN.to_string());
    let store = parent(&spans, put);
    assert_eq!((&*store.name, store.attribute("object")), ("store", "new"));
    let close = parent(&spans, store);
    assert_eq!((&*close.name, close.attribute("path")), ("close", "/new"));
}

#[test]
fn a_load_is_told_part_by_part() {
    let storage = Storage::s3();
    for seed in 0..3 {
        storage.put(format!("d/{seed}"), seed, LEN);
    }
    let sandbox = Sandbox::new(&storage);
    let collector = collector(&sandbox);
    let mount = traced(sandbox.mount(&storage), &collector.endpoint, "100%");
    let path = mount.path("d");
    sandbox.run(&["load".as_ref(), path.as_os_str()]).success();
    let mut spans = Vec::new();
    wait::until("each file is told", || {
        spans = collector.spans().unwrap();
        let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
        count("load") == 3 && count("fetch") == 3
    });
    for seed in 0..3 {
        let get = spans.iter().find(|span| gets(span, &format!("d/{seed}")));
        let get = get.unwrap_or_else(|| panic!("{spans:#?}"));
        let fetch = parent(&spans, get);
        assert_eq!(fetch.attribute("class"), "load");
        let load = parent(&spans, fetch);
        assert_eq!(load.attribute("object"), format!("d/{seed}"));
        assert_eq!(load.parent, "");
    }
}

#[test]
fn a_collector_that_is_away_costs_spans_and_one_line_of_the_log() {
    let storage = Storage::s3();
    for seed in 0..10 {
        storage.put(format!("{seed}"), seed, LEN);
    }
    // One refuses connections, one takes them and never answers.
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = refusing.local_addr().unwrap();
    drop(refusing);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [address, silent.local_addr().unwrap()] {
        let sandbox = Sandbox::new(&storage);
        let mount = traced(
            sandbox.mount(&storage),
            &format!("http://{address}"),
            "100%",
        );
        for seed in 0..10 {
            assert_eq!(data::check(seed, 0, &mount.read(format!("{seed}"))), Ok(()));
        }
        let dropped = || mount.status().number("/traces/dropped_spans");
        wait::until("the first batch is dropped", || dropped() > 0);
        let first = dropped();
        fs::write(mount.path("new"), data::bytes(1, LEN)).unwrap();
        wait::until("another one is", || dropped() > first);
        let words = ["metrics".as_ref(), mount.point().as_os_str()];
        let metrics = sandbox.run(&words).success();
        let metric = "forebay_traces_dropped_spans_total ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(metric));
        assert!(line.unwrap().parse::<u64>().unwrap() > first, "{metrics}");
        assert!(
            metrics.contains("forebay_traces_exported_spans_total 0"),
            "{metrics}"
        );
        let told = sandbox.run(&["status"]).success();
        assert!(told.contains("dropped; now: "), "{told}");
        mount.unmount();
        let log = fs::read_to_string(sandbox.log()).unwrap();
        let lines = log
            .lines()
            .filter(|line| line.contains("does not take them"));
        assert_eq!(lines.count(), 1, "{log}");
    }
}

#[test]
fn an_address_that_takes_no_traces_is_refused_before_anything_is_mounted() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    for (address, word) in [
        ("localhost:4318", "http or https"),
        ("grpc://localhost:4317", "http or https"),
        ("http://", "no url"),
        ("collector", "no url"),
        ("http://me:secret@localhost:4318", "credentials"),
        ("http://localhost:4318/?token=x", "query"),
    ] {
        let mounting = sandbox.mount(&storage).flag("--traces", address);
        let said = mounting.run().refusal();
        assert!(
            said.contains(word) && said.contains("otlp over http"),
            "{address}: {said}"
        );
    }
    let mounting = sandbox.mount(&storage).flag("--traces-ratio", "2");
    let said = mounting.run().refusal();
    assert!(said.contains("1% or 0.01"), "{said}");
    let file = sandbox.dir().join("forebay.toml");
    let text = format!(
        "mount_point = \"{}\"\ntraces = \"nowhere\"\ntraces_ratio = \"200%\"\n",
        sandbox.point().display()
    );
    fs::write(&file, text).unwrap();
    let words = ["config", "check", file.to_str().unwrap()];
    let said = sandbox.run(&words).refusal();
    assert!(
        said.contains(":2: traces: 'nowhere'") && said.contains(":3: traces_ratio:"),
        "{said}"
    );
    sandbox.assert_nothing_left();
    assert!(Path::new(&file).try_exists().unwrap());
}
