// SPDX-License-Identifier: Apache-2.0
//! Metrics in the text format of Prometheus, from one table.
//!
//! The table says everything there is to say of a metric: name, kind, meaning, labels, and where in
//! a status its values are. A scrape costs one status, which is answered from memory; nothing is
//! counted twice and nothing is kept for it. `docs/METRICS.md` is made from the same table.
//!
//! The format is a few lines, so it is written here: a library of metrics would bring counters of its
//! own, to which those of the rooms had to be copied.

use std::fmt::Write as _;

use crate::wire::{Mount, Status, Traces};

/// What a value does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It only grows while the daemon lives.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A value, with the values of its metric's labels in their order.
type Sample = (Vec<String>, u64);

/// A row of the table.
struct Metric {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    labels: &'static [&'static str],
    read: fn(&Status) -> Vec<Sample>,
}

fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    read: fn(&Status) -> Vec<Sample>,
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        help,
        labels,
        read,
    }
}

fn gauge(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    read: fn(&Status) -> Vec<Sample>,
) -> Metric {
    Metric {
        kind: Kind::Gauge,
        ..counter(name, help, labels, read)
    }
}

fn one(value: u64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}

fn each_mount(status: &Status, value: fn(&Mount) -> u64) -> Vec<Sample> {
    let mounts = status.mounts.iter();
    mounts
        .map(|mount| (vec![mount.at.clone()], value(mount)))
        .collect()
}

/// All metrics.
fn table() -> Vec<Metric> {
    [
        daemon(),
        storages(),
        flow(),
        capped(),
        cache(),
        reading(),
        kernel(),
        names(),
        work(),
        traces(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn daemon() -> Vec<Metric> {
    vec![
        gauge(
            "forebay_build_info",
            "Always 1; the label tells the version that runs.",
            &["version"],
            |status| vec![(vec![status.version.clone()], 1)],
        ),
        gauge(
            "forebay_uptime_seconds",
            "Time since the mount answered.",
            &[],
            |status| one(status.uptime_seconds),
        ),
        gauge(
            "forebay_memory_used_bytes",
            "Resident memory of the daemon.",
            &[],
            |status| one(status.memory.used_bytes),
        ),
        gauge(
            "forebay_memory_budget_bytes",
            "Memory that the daemon may use.",
            &[],
            |status| one(status.memory.budget_bytes),
        ),
    ]
}

fn storages() -> Vec<Metric> {
    const MOUNT: &[&str] = &["mount"];
    vec![
        counter(
            "forebay_storage_requests_total",
            "Requests to the storage of a mount, by kind.",
            &["mount", "kind"],
            requests,
        ),
        counter(
            "forebay_storage_request_errors_total",
            "Requests that failed for good.",
            MOUNT,
            |status| each_mount(status, |mount| mount.requests.errors),
        ),
        counter(
            "forebay_storage_request_retries_total",
            "Requests that were sent again.",
            MOUNT,
            |status| each_mount(status, |mount| mount.requests.retries),
        ),
        counter(
            "forebay_storage_throttled_total",
            "Answers that asked to slow down.",
            MOUNT,
            |status| each_mount(status, |mount| mount.requests.throttled),
        ),
        counter(
            "forebay_storage_unanswered_total",
            "Requests that were given up because nothing came for long.",
            MOUNT,
            |status| each_mount(status, |mount| mount.requests.unanswered),
        ),
        counter(
            "forebay_storage_read_bytes_total",
            "Bytes of objects that came over the wire.",
            MOUNT,
            |status| each_mount(status, |mount| mount.requests.bytes_read),
        ),
        counter(
            "forebay_storage_written_bytes_total",
            "Bytes of objects that went over the wire.",
            MOUNT,
            |status| each_mount(status, |mount| mount.requests.bytes_written),
        ),
        gauge(
            "forebay_storage_failing",
            "1 while the latest request to the storage of a mount failed, else 0.",
            MOUNT,
            |status| each_mount(status, |mount| u64::from(mount.fault.is_some())),
        ),
    ]
}

fn flow() -> Vec<Metric> {
    const MOUNT: &[&str] = &["mount"];
    vec![
        gauge(
            "forebay_storage_width",
            "Requests for data that may be under way at a time.",
            MOUNT,
            |status| each_mount(status, |mount| mount.flow.width),
        ),
        gauge(
            "forebay_storage_under_way",
            "Requests for data that are under way.",
            MOUNT,
            |status| each_mount(status, |mount| mount.flow.under_way),
        ),
        gauge(
            "forebay_storage_waiting",
            "Requests for data that wait for their turn, by what they are for.",
            &["mount", "class"],
            |status| {
                by_kind(status, |mount| {
                    let flow = &mount.flow;
                    vec![
                        ("demand", flow.waiting_demand),
                        ("ahead", flow.waiting_ahead),
                        ("neighbours", flow.waiting_neighbours),
                        ("load", flow.waiting_loads),
                    ]
                })
            },
        ),
        counter(
            "forebay_storage_width_changes_total",
            "Decisions about the width: more brought more bytes (grown) or a trial brought nothing \
             (taken_back); the storage asked to slow down or did not answer (halved); requests took \
             long and fewer cost nothing (shrunk).",
            &["mount", "decision"],
            |status| {
                by_kind(status, |mount| {
                    let flow = &mount.flow;
                    vec![
                        ("grown", flow.grown),
                        ("taken_back", flow.taken_back),
                        ("halved", flow.halved),
                        ("shrunk", flow.shrunk),
                    ]
                })
            },
        ),
        counter(
            "forebay_storage_hedges_total",
            "Requests whose answer was late: sent a second time (sent), of those answered sooner so \
             (won), and not sent again because enough were or all turns were taken (refused).",
            &["mount", "outcome"],
            |status| {
                by_kind(status, |mount| {
                    let flow = &mount.flow;
                    vec![
                        ("sent", flow.hedged),
                        ("won", flow.hedges_won),
                        ("refused", flow.hedges_refused),
                    ]
                })
            },
        ),
    ]
}

fn capped() -> Vec<Metric> {
    const MOUNT: &[&str] = &["mount"];
    vec![
        gauge(
            "forebay_storage_bandwidth_bytes",
            "Bytes of data a second that a mount is held to; 0 when it is not.",
            MOUNT,
            |status| each_mount(status, |mount| mount.bandwidth_bytes.unwrap_or(0)),
        ),
        counter(
            "forebay_storage_held_back_microseconds_total",
            "How long that held its requests back, together.",
            MOUNT,
            |status| each_mount(status, |mount| mount.flow.held_back_microseconds),
        ),
    ]
}

fn by_kind(status: &Status, values: fn(&Mount) -> Vec<(&'static str, u64)>) -> Vec<Sample> {
    let of = |mount: &Mount| {
        let at = mount.at.clone();
        let values = values(mount).into_iter();
        values.map(move |(kind, value)| (vec![at.clone(), kind.to_owned()], value))
    };
    status.mounts.iter().flat_map(of).collect()
}

fn requests(status: &Status) -> Vec<Sample> {
    let of = |mount: &Mount| {
        let count = mount.requests;
        let kinds = [
            ("list", count.list),
            ("head", count.head),
            ("get", count.get),
            ("put", count.put),
            ("copy", count.copy),
            ("delete", count.delete),
            ("upload", count.upload),
            ("other", count.other),
        ];
        let at = mount.at.clone();
        kinds.map(|(kind, count)| (vec![at.clone(), kind.to_owned()], count))
    };
    status.mounts.iter().flat_map(of).collect()
}

fn cache() -> Vec<Metric> {
    vec![
        gauge(
            "forebay_cache_capacity_bytes",
            "Bytes that the cache may use.",
            &[],
            |status| one(status.cache.capacity_bytes),
        ),
        gauge(
            "forebay_cache_used_bytes",
            "Bytes that the cache uses.",
            &[],
            |status| one(status.cache.used_bytes),
        ),
        gauge(
            "forebay_cache_free_bytes",
            "Bytes that can be filled before something must be evicted.",
            &[],
            |status| one(status.cache.free_bytes),
        ),
        gauge(
            "forebay_cache_objects",
            "Object versions that are cached, whole or in part.",
            &[],
            |status| one(status.cache.objects),
        ),
        gauge(
            "forebay_cache_pages",
            "Pages that are cached.",
            &[],
            |status| one(status.cache.pages),
        ),
        gauge(
            "forebay_cache_pinned_bytes",
            "Bytes that pinned objects take when they are whole.",
            &[],
            |status| one(status.cache.pinned_bytes),
        ),
        gauge(
            "forebay_cache_retired",
            "1 when the cache directory is out of use, else 0.",
            &[],
            |status| one(u64::from(status.cache.retired.is_some())),
        ),
    ]
}

fn reading() -> Vec<Metric> {
    vec![
        counter(
            "forebay_cache_hits_total",
            "Opens and reads that needed no request.",
            &[],
            |status| one(status.cache.hits),
        ),
        counter(
            "forebay_cache_misses_total",
            "Opens and reads that waited for a storage.",
            &[],
            |status| one(status.cache.misses),
        ),
        counter(
            "forebay_cache_expired_total",
            "Objects dropped because the time that a rule gives them was over.",
            &[],
            |status| one(status.cache.expired),
        ),
        counter(
            "forebay_cache_filled_pages_total",
            "Pages written into the cache.",
            &[],
            |status| one(status.cache.fills),
        ),
        counter(
            "forebay_cache_evicted_objects_total",
            "Object versions thrown out to make room.",
            &[],
            |status| one(status.cache.evictions),
        ),
        counter(
            "forebay_cache_corrupt_pages_total",
            "Pages that failed their checksum; they were not served.",
            &[],
            |status| one(status.cache.corrupt_pages),
        ),
        counter(
            "forebay_served_bytes_total",
            "Bytes given to readers; a file that is handed to the kernel counts whole at its open.",
            &[],
            |status| one(status.cache.served_bytes),
        ),
        counter(
            "forebay_fetched_bytes_total",
            "Bytes of data fetched from all storages, also ahead of readers.",
            &[],
            |status| one(status.cache.fetched_bytes),
        ),
    ]
}

fn kernel() -> Vec<Metric> {
    vec![
        gauge(
            "forebay_open_files",
            "Files that are open, by how they are served.",
            &["mode"],
            |status| {
                let open = status.kernel.open_files;
                let modes = [
                    ("passthrough", open.passthrough),
                    ("cached", open.cached),
                    ("direct", open.direct),
                ];
                let modes = modes.into_iter();
                modes
                    .map(|(mode, count)| (vec![mode.to_owned()], count))
                    .collect()
            },
        ),
        gauge(
            "forebay_inodes",
            "Inodes that the kernel holds on to.",
            &[],
            |status| one(status.kernel.inodes),
        ),
        gauge(
            "forebay_passthrough_available",
            "1 when the kernel may read complete cache files itself, else 0.",
            &[],
            |status| one(u64::from(status.kernel.passthrough.available)),
        ),
        counter(
            "forebay_kernel_requests_total",
            "Requests of the kernel, by kind.",
            &["kind"],
            |status| {
                let requests = status.kernel.requests.iter();
                let requests = requests.map(|(kind, count)| (vec![kind.clone()], *count));
                requests.collect()
            },
        ),
        counter(
            "forebay_kernel_waits_total",
            "Requests of the kernel that waited for a storage or a disk.",
            &[],
            |status| one(status.kernel.waits),
        ),
        counter(
            "forebay_kernel_waited_microseconds_total",
            "How long those waited together.",
            &[],
            |status| one(status.kernel.waited_micros),
        ),
        counter(
            "forebay_kernel_denied_total",
            "Requests of the kernel that were denied (EACCES, EPERM, EROFS); the log tells who was \
             denied what.",
            &[],
            |status| one(status.kernel.denied),
        ),
    ]
}

fn names() -> Vec<Metric> {
    vec![
        counter(
            "forebay_names_left_out_total",
            "Names in listings that no file system can show; again at each listing.",
            &[],
            |status| one(status.names.left_out),
        ),
        counter(
            "forebay_names_served_old_total",
            "Answers from knowledge past its age, because a storage did not answer.",
            &[],
            |status| one(status.names.served_old),
        ),
    ]
}

fn work() -> Vec<Metric> {
    vec![
        gauge(
            "forebay_staged_files",
            "Files that were written and that the storages do not have yet.",
            &[],
            |status| one(status.staged.files),
        ),
        gauge("forebay_staged_bytes", "Their bytes.", &[], |status| {
            one(status.staged.bytes)
        }),
        gauge(
            "forebay_staged_oldest_seconds",
            "How long ago the first of them was last written.",
            &[],
            |status| one(status.staged.oldest_seconds),
        ),
        gauge("forebay_loads_running", "Loads that run.", &[], |status| {
            one(status.loads.len() as u64)
        }),
    ]
}

fn traces() -> Vec<Metric> {
    vec![
        counter(
            "forebay_traces_exported_spans_total",
            "Spans of traces that the collector took.",
            &[],
            |status| of_traces(status, |traces| traces.exported_spans),
        ),
        counter(
            "forebay_traces_dropped_spans_total",
            "Spans that the collector did not take, or that found no place to wait for it.",
            &[],
            |status| of_traces(status, |traces| traces.dropped_spans),
        ),
    ]
}

fn of_traces(status: &Status, value: fn(&Traces) -> u64) -> Vec<Sample> {
    one(status.traces.as_ref().map_or(0, value))
}

/// Writes what a daemon tells of itself.
pub fn text(status: &Status) -> String {
    let mut text = String::new();
    for metric in table() {
        let (name, kind) = (metric.name, word(metric.kind));
        // Writing to a text does not fail.
        writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help).ok();
        for (values, value) in (metric.read)(status) {
            writeln!(text, "{name}{} {value}", labels(metric.labels, &values)).ok();
        }
    }
    text
}

/// Writes the document of all metrics.
pub fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         `forebay metrics DIR` prints them, the admin socket answers `GET /metrics`, and \
         `--metrics-listen 127.0.0.1:9465` of `forebay mount` and `forebay serve` has them served \
         over TCP, to whoever can reach that address.\n\
         Names and labels stay; new ones are added. Counters begin at 0 with the daemon.\n\
         `mount` is the path of a mount in the tree, and `/` the mount point itself.\n\n\
         | name | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in table() {
        let labels = metric.labels.iter().map(|label| format!("`{label}`"));
        let labels = labels.collect::<Vec<_>>().join(", ");
        let (name, kind, help) = (metric.name, word(metric.kind), metric.help);
        writeln!(text, "| `{name}` | {kind} | {labels} | {help} |").ok();
    }
    text
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    }
}

fn labels(names: &[&str], values: &[String]) -> String {
    let pairs = names.iter().zip(values);
    let pairs: Vec<_> = pairs
        .map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{name}=\"{}\"", value.replace('\n', "\\n"))
        })
        .collect();
    match pairs.is_empty() {
        true => String::new(),
        false => format!("{{{}}}", pairs.join(",")),
    }
}
