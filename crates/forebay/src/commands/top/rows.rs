// SPDX-License-Identifier: Apache-2.0
//! Rates between two samples of a daemon: by file, by process, by mount, and in all.

use std::collections::HashMap;
use std::hash::Hash;

use gateway::wire;
use serde::Serialize;

use super::Sample;

/// What happened between two samples.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(super) struct Rates {
    /// Between the two.
    pub(super) seconds: f64,
    pub(super) mount_point: String,
    /// Whether the kernel reads complete cache files itself, so that their bytes are not seen.
    pub(super) passthrough: bool,
    pub(super) total: Total,
    pub(super) files: Vec<Row>,
    pub(super) processes: Vec<Row>,
    pub(super) mounts: Vec<Row>,
}

/// Sums of all.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(super) struct Total {
    /// Given to readers; a file that the kernel reads itself counts whole at its open.
    pub(super) served_bytes: u64,
    pub(super) fetched_bytes: u64,
    pub(super) storage_requests: u64,
    pub(super) hit_ratio: Option<f64>,
    pub(super) memory_bytes: u64,
    pub(super) cache_bytes: u64,
}

/// One file, process or mount.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct Row {
    /// Path in the tree, or the name of the process.
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<u32>,
    #[serde(flatten)]
    pub(super) counts: wire::Counts,
    /// Of mounts: requests to the storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) storage_requests: Option<u64>,
    /// Of mounts: bytes that came from the storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fetched_bytes: Option<u64>,
}

impl Rates {
    pub(super) fn between(before: &Sample, after: &Sample) -> Rates {
        let (then, now) = (&before.traffic, &after.traffic);
        // Whoever was forgotten between the two begins anew.
        let goes_on = now.watched_milliseconds >= then.watched_milliseconds;
        let files = differences(
            then.files
                .iter()
                .filter(|_| goes_on)
                .map(|file| (&file.path, file.counts)),
            now.files.iter().map(|file| (&file.path, file.counts)),
        );
        let key = |one: &wire::ProcessTraffic| (one.pid, one.command.clone());
        let processes = differences(
            then.processes
                .iter()
                .filter(|_| goes_on)
                .map(|one| (key(one), one.counts)),
            now.processes.iter().map(|one| (key(one), one.counts)),
        );
        let files: Vec<Row> = files
            .into_iter()
            .map(|(path, counts)| Row {
                name: path.clone(),
                counts,
                ..Row::default()
            })
            .collect();
        let processes = processes.into_iter().map(|((pid, name), counts)| Row {
            name,
            pid: Some(pid),
            counts,
            ..Row::default()
        });
        Rates {
            seconds: after.at.saturating_duration_since(before.at).as_secs_f64(),
            mount_point: after.status.mount_point.clone(),
            passthrough: after.status.kernel.passthrough.available,
            total: total(&before.status, &after.status),
            mounts: mounts(&before.status, &after.status, &files),
            processes: processes.collect(),
            files,
        }
    }

    /// Returns a number as a rate.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "figures for people"
    )]
    pub(super) fn per_second(&self, count: u64) -> u64 {
        (count as f64 / self.seconds.max(0.001)).round() as u64
    }
}

/// Returns what was counted between, of all of which anything was.
fn differences<K: Eq + Hash>(
    before: impl Iterator<Item = (K, wire::Counts)>,
    after: impl Iterator<Item = (K, wire::Counts)>,
) -> Vec<(K, wire::Counts)> {
    let before: HashMap<K, wire::Counts> = before.collect();
    let changed = after.filter_map(|(key, now)| {
        let then = before.get(&key).copied().unwrap_or_default();
        let counts = wire::Counts {
            opens: now.opens.saturating_sub(then.opens),
            kernel_opens: now.kernel_opens.saturating_sub(then.kernel_opens),
            reads: now.reads.saturating_sub(then.reads),
            read_bytes: now.read_bytes.saturating_sub(then.read_bytes),
            writes: now.writes.saturating_sub(then.writes),
            written_bytes: now.written_bytes.saturating_sub(then.written_bytes),
        };
        (counts != wire::Counts::default()).then_some((key, counts))
    });
    changed.collect()
}

fn total(before: &wire::Status, after: &wire::Status) -> Total {
    let counted = |of: &dyn Fn(&wire::Status) -> u64| of(after).saturating_sub(of(before));
    let requests = |status: &wire::Status| {
        let mounts = status.mounts.iter();
        mounts.map(|mount| requests(&mount.requests)).sum()
    };
    let hits = counted(&|status| status.cache.hits);
    let all = hits + counted(&|status| status.cache.misses);
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let ratio = || hits as f64 / all as f64;
    Total {
        served_bytes: counted(&|status| status.cache.served_bytes),
        fetched_bytes: counted(&|status| status.cache.fetched_bytes),
        storage_requests: counted(&requests),
        hit_ratio: (all > 0).then(ratio),
        memory_bytes: after.memory.used_bytes,
        cache_bytes: after.cache.used_bytes,
    }
}

fn requests(count: &wire::Requests) -> u64 {
    let reads = count.list + count.head + count.get;
    reads + count.put + count.copy + count.delete + count.upload + count.other
}

/// Sums files up by the mount that they lie in; what a storage was asked for is told by the status.
fn mounts(before: &wire::Status, after: &wire::Status, files: &[Row]) -> Vec<Row> {
    let mut rows: Vec<Row> = (after.mounts.iter())
        .map(|mount| {
            let then = before.mounts.iter().find(|then| then.at == mount.at);
            let then = then.map(|then| &then.requests);
            let since = |of: fn(&wire::Requests) -> u64| {
                of(&mount.requests).saturating_sub(then.map_or(0, of))
            };
            Row {
                name: mount.at.clone(),
                storage_requests: Some(since(requests)),
                fetched_bytes: Some(since(|count| count.bytes_read)),
                ..Row::default()
            }
        })
        .collect();
    for file in files {
        let covers = |at: &str| {
            let rest = file.name.strip_prefix(at.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let innermost = rows.iter_mut().filter(|row| covers(&row.name));
        if let Some(row) = innermost.max_by_key(|row| row.name.len()) {
            let (sum, one) = (&mut row.counts, file.counts);
            sum.opens += one.opens;
            sum.kernel_opens += one.kernel_opens;
            sum.reads += one.reads;
            sum.read_bytes += one.read_bytes;
            sum.writes += one.writes;
            sum.written_bytes += one.written_bytes;
        }
    }
    rows
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use types::{Clock, ManualClock};

    use super::*;

    /// Makes two samples, two seconds apart.
    pub(in super::super) fn rates() -> Rates {
        let clock = ManualClock::default();
        let file = |path: &str, opens, read_bytes| wire::FileTraffic {
            path: path.into(),
            counts: wire::Counts {
                opens,
                read_bytes,
                reads: opens,
                ..wire::Counts::default()
            },
        };
        let process = |pid, opens| wire::ProcessTraffic {
            pid,
            command: "python".into(),
            counts: wire::Counts {
                opens,
                kernel_opens: opens,
                ..wire::Counts::default()
            },
        };
        let mount = |at: &str, get| wire::Mount {
            at: at.into(),
            requests: wire::Requests {
                get,
                bytes_read: get << 20,
                ..wire::Requests::default()
            },
            ..wire::Mount::default()
        };
        let mut status = wire::Status {
            mount_point: "/mnt/data".into(),
            mounts: vec![mount("/", 1), mount("/a", 1)],
            ..wire::Status::default()
        };
        status.kernel.passthrough.available = true;
        let before = Sample {
            at: clock.now(),
            status: status.clone(),
            traffic: wire::Traffic {
                watched_milliseconds: 1000,
                files: vec![file("/a/1", 1, 10), file("/b", 5, 50)],
                processes: vec![process(7, 3)],
            },
        };
        clock.advance(Duration::from_secs(2));
        status.mounts = vec![mount("/", 1), mount("/a", 5)];
        (status.cache.hits, status.cache.misses) = (3, 1);
        status.cache.served_bytes = 4 << 20;
        let after = Sample {
            at: clock.now(),
            status,
            traffic: wire::Traffic {
                watched_milliseconds: 3000,
                files: vec![
                    file("/a/1", 3, 4 << 20),
                    file("/b", 5, 50),
                    file("/c", 2, 1 << 20),
                ],
                processes: vec![process(7, 9), process(8, 1)],
            },
        };
        Rates::between(&before, &after)
    }

    #[test]
    fn a_row_is_what_happened_between_and_idle_ones_have_none() {
        let rates = rates();
        assert_eq!(rates.seconds, 2.0);
        let files: Vec<_> = rates
            .files
            .iter()
            .map(|row| (&*row.name, row.counts.opens))
            .collect();
        assert_eq!(files, [("/a/1", 2), ("/c", 2)]);
        let pids: Vec<_> = rates
            .processes
            .iter()
            .map(|row| (row.pid, row.counts.opens))
            .collect();
        assert_eq!(pids, [(Some(7), 6), (Some(8), 1)]);
        assert_eq!(rates.total.hit_ratio, Some(0.75));
        assert_eq!((rates.total.storage_requests, rates.per_second(5)), (4, 3));
    }

    #[test]
    fn a_file_counts_for_the_innermost_mount_that_it_lies_in() {
        let rates = rates();
        let [root, inner] = &rates.mounts[..] else {
            panic!("{:?}", rates.mounts)
        };
        assert_eq!((root.counts.opens, root.storage_requests), (2, Some(0)));
        assert_eq!((inner.counts.opens, inner.storage_requests), (2, Some(4)));
        assert_eq!(inner.fetched_bytes, Some(4 << 20));
    }
}
