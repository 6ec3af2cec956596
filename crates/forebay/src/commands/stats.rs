// SPDX-License-Identifier: Apache-2.0
//! `forebay stats`: what a daemon does, one line a second.
//!
//! A line is the difference of two statuses, which the daemon answers from memory: watching it costs
//! nothing on the way of a read.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gateway::history::SILENT;
use gateway::{Client, wire};
use serde::Serialize;
use types::{ByteSize, Clock, ErrorKind, SystemClock};

use super::mounts::block_on;
use super::waiting::one_client;
use crate::cli::StatsArgs;
use crate::usage;

/// A status is answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines below one heading: about a screen.
const LINES: u64 = 20;

const HEADING: &str = "\
---------kernel--------- -----------read----------- -----storage----- -----usage-----
  ops open wait  wait-ms   read/s  fetch/s   hit-%   req  fail  slow   memory   cache
";

/// What happened between two statuses.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
struct Line {
    /// Seconds between the two.
    seconds: f64,
    /// Requests of the kernel.
    operations: u64,
    /// Those of them that opened files.
    opens: u64,
    /// Those of them that waited for a storage or a disk.
    waits: u64,
    /// How long those waited, on average.
    wait_milliseconds: Option<f64>,
    read_bytes: u64,
    fetched_bytes: u64,
    /// The share of opens and reads that needed no request.
    hit_ratio: Option<f64>,
    storage_requests: u64,
    storage_errors: u64,
    storage_throttled: u64,
    memory_bytes: u64,
    cache_bytes: u64,
}

/// Shows statistics until interrupted.
pub(crate) fn run(args: &StatsArgs, run_dir: Option<&Path>) -> Result<()> {
    if args.interval.is_zero() {
        return Err(usage::wrong(
            "an interval of 0 is no time: give one such as 1s",
        ));
    }
    let client = one_client(args.dir.as_deref(), &args.remote, run_dir)?;
    block_on(watch(&client, args))?
}

async fn watch(client: &Client, args: &StatsArgs) -> Result<()> {
    let clock = SystemClock;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut before = (client.status(PATIENCE).await?, clock.now());
    let mut lines = 0;
    while args.count.is_none_or(|count| lines < count) {
        tokio::select! {
            _ = &mut interrupt => return Ok(()),
            () = tokio::time::sleep(args.interval) => {}
        }
        let status = client
            .status(PATIENCE)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::Unavailable => error.context("the daemon has ended"),
                _ => error,
            })?;
        let after = (status, clock.now());
        let line = Line::between(&before, &after);
        if args.json {
            super::answer(serde_json::to_string(&line).context("write JSON")? + "\n")?;
        } else {
            if lines % LINES == 0 {
                super::answer(HEADING)?;
            }
            super::answer(line.text())?;
        }
        before = after;
        lines += 1;
    }
    Ok(())
}

impl Line {
    fn between(
        (before, then): &(wire::Status, Instant),
        (after, now): &(wire::Status, Instant),
    ) -> Line {
        let counted = |of: &dyn Fn(&wire::Status) -> u64| of(after).saturating_sub(of(before));
        let of_mounts = |of: fn(&wire::Requests) -> u64| {
            counted(&|status: &wire::Status| {
                status.mounts.iter().map(|one| of(&one.requests)).sum()
            })
        };
        let waits = counted(&|status| status.kernel.waits);
        let micros = counted(&|status| status.kernel.waited_micros);
        let (hits, misses) = (
            counted(&|status| status.cache.hits),
            counted(&|status| status.cache.misses),
        );
        let operations = |status: &wire::Status| {
            let all = status.kernel.requests.iter();
            let meant = all.filter(|(kind, _)| !SILENT.contains(&kind.as_str()));
            meant.map(|(_, count)| *count).sum()
        };
        let opens = |status: &wire::Status| {
            let of = |kind: &str| status.kernel.requests.get(kind).copied().unwrap_or(0);
            of("open") + of("open for writing") + of("create")
        };
        Line {
            seconds: now.saturating_duration_since(*then).as_secs_f64(),
            operations: counted(&operations),
            opens: counted(&opens),
            waits,
            wait_milliseconds: ratio(micros, waits).map(|micros| micros / 1000.0),
            read_bytes: counted(&|status| status.cache.served_bytes),
            fetched_bytes: counted(&|status| status.cache.fetched_bytes),
            hit_ratio: ratio(hits, hits + misses),
            storage_requests: of_mounts(wire::Requests::sum),
            storage_errors: of_mounts(|requests| requests.errors),
            storage_throttled: of_mounts(|requests| requests.throttled),
            memory_bytes: after.memory.used_bytes,
            cache_bytes: after.cache.used_bytes,
        }
    }

    fn text(&self) -> String {
        let rate = |count: u64| per_second(count, self.seconds);
        let or_dash = |number: Option<f64>| number.map_or("-".to_owned(), |it| format!("{it:.1}"));
        format!(
            "{:>5}{:>5}{:>5}{:>9}{:>9}{:>9}{:>8}{:>6}{:>6}{:>6}{:>9}{:>8}\n",
            short(rate(self.operations)),
            short(rate(self.opens)),
            short(rate(self.waits)),
            or_dash(self.wait_milliseconds),
            bytes(rate(self.read_bytes)),
            bytes(rate(self.fetched_bytes)),
            or_dash(self.hit_ratio.map(|ratio| ratio * 100.0)),
            short(rate(self.storage_requests)),
            short(rate(self.storage_errors)),
            short(rate(self.storage_throttled)),
            bytes(self.memory_bytes),
            bytes(self.cache_bytes),
        )
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(0.001)).round() as u64
}

/// Shows a number in at most four letters.
fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{}k", count / 1000),
        _ => format!("{}M", count / 1_000_000),
    }
}

/// Shows bytes in at most seven letters.
fn bytes(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        bytes => {
            let text = ByteSize(bytes)
                .to_string()
                .replace(' ', "")
                .replace("iB", "");
            text.chars().take(8).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(count: u64) -> wire::Status {
        let mut status = wire::Status::default();
        status.kernel.requests.insert("read".into(), 10 * count);
        status.kernel.requests.insert("open".into(), count);
        status.kernel.requests.insert("forget".into(), 1000 * count);
        (status.kernel.waits, status.kernel.waited_micros) = (count, 4000 * count);
        (status.cache.hits, status.cache.misses) = (3 * count, count);
        status.cache.served_bytes = count << 20;
        status.mounts.push(wire::Mount {
            requests: wire::Requests {
                get: count,
                list: count,
                throttled: 1,
                ..wire::Requests::default()
            },
            ..wire::Mount::default()
        });
        status
    }

    #[test]
    fn a_line_is_what_happened_in_a_second() {
        let clock = types::ManualClock::default();
        let then = clock.now();
        clock.advance(Duration::from_secs(2));
        let line = Line::between(&(status(10), then), &(status(30), clock.now()));
        assert_eq!((line.operations, line.opens, line.waits), (220, 20, 20));
        assert_eq!(
            (line.wait_milliseconds, line.hit_ratio),
            (Some(4.0), Some(0.75))
        );
        assert_eq!((line.storage_requests, line.storage_throttled), (40, 0));
        let text = line.text();
        for part in [" 110", "10M", "4.0", "75.0"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let widths = HEADING.lines().map(str::len);
        assert!(
            widths
                .chain([text.trim_end().len()])
                .all(|width| width == 85),
            "{text}"
        );
        let idle = Line::between(&(status(1), then), &(status(1), clock.now()));
        assert_eq!((idle.wait_milliseconds, idle.hit_ratio), (None, None));
    }

    #[test]
    fn numbers_fit_their_columns() {
        assert_eq!(short(9999), "9999");
        assert_eq!(short(10_500), "10k");
        assert_eq!(short(2_500_000), "2M");
        assert_eq!(bytes(0), "0");
        assert!(bytes(u64::MAX).len() <= 8, "{}", bytes(u64::MAX));
    }
}
