// SPDX-License-Identifier: Apache-2.0
//! `forebay status`: what the running daemons serve, as a table for people or JSON for scripts.
//!
//! Asks all daemons at the same time, and says which do not answer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use comfy_table::{ContentArrangement, Table, presets};
use futures::future::join_all;
use gateway::{Client, wire};
use serde::Serialize;
use types::ByteSize;

use crate::cli::StatusArgs;
use crate::places;
use crate::records::{self, Found};
use crate::values::show_duration;

/// A status is answered from memory; a daemon that takes longer is in trouble.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pinned paths that a table shows.
const PINS_SHOWN_MAX: usize = 5;

/// Columns of a terminal that most people have.
const WIDTH: u16 = 100;

/// What is printed with `--json`.
#[derive(Debug, Default, Serialize)]
struct Report {
    daemons: Vec<wire::Status>,
    /// Daemons that run and do not answer.
    silent: Vec<Silent>,
    /// Daemons that died and left their mounts behind.
    dead: Vec<Dead>,
}

#[derive(Debug, Serialize)]
struct Silent {
    mount_point: String,
    pid: i32,
    error: String,
}

#[derive(Debug, Serialize)]
struct Dead {
    mount_point: String,
    pid: i32,
}

/// Prints the status; fails when no daemon runs.
pub(crate) fn run(args: &StatusArgs, run_dir: Option<&Path>) -> Result<()> {
    if let Some(client) = super::waiting::remote_client(&args.remote)? {
        let asked = super::mounts::block_on(client.status(PATIENCE))?;
        let report = Report {
            daemons: vec![asked?],
            ..Report::default()
        };
        return show(&report, args.json);
    }
    let mut found = records::scan(&places::run_dirs(run_dir))?;
    if let Some(dir) = &args.dir {
        let mount_point = places::mounted_at(dir)?;
        found
            .live
            .retain(|record| record.mount_point == mount_point);
        found
            .dead
            .retain(|record| record.mount_point == mount_point);
    }
    let report = ask_all(&found)?;
    show(&report, args.json)?;
    match &args.dir {
        _ if !report.daemons.is_empty() => Ok(()),
        _ if !report.silent.is_empty() || !report.dead.is_empty() => bail!("no daemon answers"),
        Some(dir) => bail!("no daemon of this user serves '{}'", dir.display()),
        None => bail!("no daemon of this user runs; start one with 'forebay mount URI DIR'"),
    }
}

fn show(report: &Report, json: bool) -> Result<()> {
    super::answer(match json {
        true => serde_json::to_string_pretty(report).context("write JSON")? + "\n",
        false => describe(report),
    })
}

/// Returns what `--json` prints of one daemon.
pub(crate) fn of(status: wire::Status) -> String {
    let report = Report {
        daemons: vec![status],
        ..Report::default()
    };
    // Plain data always has a text.
    serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
}

/// Puts the report into words.
fn describe(report: &Report) -> String {
    let live = report
        .daemons
        .iter()
        .map(|status| format!("{}\n", table(status)));
    let silent = report.silent.iter().map(|silent| {
        let Silent {
            mount_point,
            pid,
            error,
        } = silent;
        format!("{mount_point}: the daemon (pid {pid}) does not answer: {error}\n")
    });
    let dead = report.dead.iter().map(|Dead { mount_point, pid }| {
        format!(
            "{mount_point}: its daemon (pid {pid}) died; 'forebay umount {mount_point}' takes \
             the dead mount away, and mounting there again does too\n"
        )
    });
    live.chain(silent).chain(dead).collect()
}

fn ask_all(found: &Found) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let asked = found
        .live
        .iter()
        .map(|record| async move { (record, Client::new(&record.socket).status(PATIENCE).await) });
    let mut report = Report::default();
    report.dead.extend(found.dead.iter().map(|record| Dead {
        mount_point: record.mount_point.display().to_string(),
        pid: record.pid,
    }));
    for (record, answer) in runtime.block_on(join_all(asked)) {
        match answer {
            Ok(status) => report.daemons.push(status),
            Err(error) => report.silent.push(Silent {
                mount_point: record.mount_point.display().to_string(),
                pid: record.pid,
                error: error.to_string(),
            }),
        }
    }
    Ok(report)
}

/// Shows one daemon: what it serves first, what it uses next, what went wrong last.
fn table(status: &wire::Status) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH);
    table.set_header([status.mount_point.clone(), headline(status)]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    mount_rows(status, &mut row);
    work_rows(status, &mut row);
    if status.staged.files > 0 {
        row("not stored yet", staged(&status.staged));
    }
    if status.names != wire::Names::default() {
        row("names", names(status.names));
    }
    row("cache", cache(&status.cache));
    row("  directory", status.cache.dir.clone());
    row("  hit ratio", hits(&status.cache));
    if !status.rules.is_empty() {
        row("  rules", ruled(status));
    }
    if !status.pins.is_empty() {
        row("  pinned", pinned(status));
    }
    if let Some(reason) = &status.cache.retired {
        row("  retired", reason.clone());
    }
    let (used, budget) = (status.memory.used_bytes, status.memory.budget_bytes);
    row("memory", format!("{} of {}", size(used), size(budget)));
    let open = status.kernel.open_files;
    row(
        "open files",
        format!(
            "{} by the kernel itself, {} through the daemon",
            open.passthrough,
            open.cached + open.direct
        ),
    );
    row("passthrough", passthrough(&status.kernel));
    row("transport", transport(&status.kernel));
    if status.kernel.denied > 0 {
        row(
            "denied",
            format!("{} requests; the log tells whose", status.kernel.denied),
        );
    }
    if let Some(traces) = &status.traces {
        row("traces", traced(traces));
    }
    if let Some(log) = &status.log {
        row("log", log.clone());
    }
    if let Some(last) = status.last_errors.last() {
        row("last fault", last.message.clone());
        let before = status.last_errors.len() - 1;
        if before > 0 {
            row("", format!("and {before} before it, in the log"));
        }
    }
    table
}

fn mount_rows(status: &wire::Status, row: &mut impl FnMut(&str, String)) {
    for mount in &status.mounts {
        let mode = super::write_modes(&mount.write_mode, &mount.write_modes);
        let text = format!("{} ({mode}, freshness {})", mount.uri, mount.freshness);
        row(
            if mount.at == "/" {
                "storage"
            } else {
                &mount.at
            },
            text,
        );
        row("  requests", requests(&mount.requests));
        row("  at a time", flow(&mount.flow));
        if let Some(rate) = mount.bandwidth_bytes {
            row("  at most", format!("{} a second", size(rate)));
        }
        if let Some(fault) = &mount.fault {
            row("  fault", fault.clone());
        }
    }
}

fn work_rows(status: &wire::Status, row: &mut impl FnMut(&str, String)) {
    for tree in &status.trees_ahead {
        row("neighbours", ahead(tree));
    }
    for load in &status.loads {
        row("load", loading(load));
    }
    if let Some(scrub) = &status.scrub {
        let text = format!(
            "{} compared, {} pages bad",
            size(scrub.bytes),
            scrub.bad_pages
        );
        row("scrub", text);
    }
}

fn headline(status: &wire::Status) -> String {
    let uptime = uptime(status.uptime_seconds);
    format!(
        "forebay {}, pid {}, up {uptime}",
        status.version, status.pid
    )
}

fn traced(traces: &wire::Traces) -> String {
    let (collector, taken) = (&traces.collector, traces.exported_spans);
    let mut text = format!("{taken} spans sent to {collector}");
    if traces.dropped_spans > 0 {
        text.push_str(&format!("; {} dropped", traces.dropped_spans));
    }
    if let Some(fault) = &traces.fault {
        text.push_str(&format!("; now: {fault}"));
    }
    text
}

fn requests(count: &wire::Requests) -> String {
    let mut text = format!(
        "{} list, {} head, {} get; {} read",
        count.list,
        count.head,
        count.get,
        size(count.bytes_read)
    );
    if count.put + count.copy + count.delete > 0 {
        text.push_str(&format!(
            "; {} put, {} copy, {} delete; {} written",
            count.put,
            count.copy,
            count.delete,
            size(count.bytes_written)
        ));
    }
    for (count, what) in [
        (count.errors, "failed"),
        (count.retries, "retried"),
        (count.throttled, "throttled"),
        (count.unanswered, "unanswered"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {count} {what}"));
        }
    }
    text
}

fn flow(flow: &wire::Flow) -> String {
    let mut text = format!("{} of {}", flow.under_way, flow.width);
    let ahead = flow.waiting_ahead + flow.waiting_neighbours + flow.waiting_loads;
    for (count, what) in [
        (flow.waiting_demand, "wait with a reader"),
        (ahead, "wait ahead of readers"),
        (flow.halved, "times halved"),
        (flow.hedged, "late ones sent again"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {count} {what}"));
        }
    }
    text
}

fn cache(cache: &wire::Cache) -> String {
    format!(
        "{} of {} used, {} free, {} objects",
        size(cache.used_bytes),
        size(cache.capacity_bytes),
        room(cache.free_bytes),
        cache.objects
    )
}

/// Tells of what paths something is said, in short: `forebay rules list` shows all.
fn ruled(status: &wire::Status) -> String {
    let one = |rule: &wire::Rule| {
        let mut words = Vec::new();
        if let Some(ttl) = rule.ttl_seconds {
            let ttl = show_duration(Duration::from_secs(ttl));
            words.push(format!("TTL {ttl}"));
        }
        if let Some(quota) = rule.quota_bytes {
            words.push(format!("{} of {}", size(rule.cached_bytes), size(quota)));
        }
        words.extend(
            rule.priority
                .as_ref()
                .map(|word| format!("{word} priority")),
        );
        format!("{}: {}", rule.path, words.join(", "))
    };
    let shown = status.rules.iter().take(PINS_SHOWN_MAX);
    let mut text = shown.map(one).collect::<Vec<_>>().join("; ");
    let more = status.rules.len().saturating_sub(PINS_SHOWN_MAX);
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

fn pinned(status: &wire::Status) -> String {
    let shown = status.pins.iter().take(PINS_SHOWN_MAX);
    let mut paths = shown.map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = status.pins.len().saturating_sub(PINS_SHOWN_MAX);
    if more > 0 {
        paths.push_str(&format!(" and {more} more"));
    }
    let cache = &status.cache;
    format!(
        "{paths}: {} of {} objects",
        size(cache.pinned_bytes),
        cache.pinned_objects
    )
}

fn ahead(tree: &wire::TreeAhead) -> String {
    let percent = (100 * tree.cached_files).checked_div(tree.found_files);
    format!(
        "loading {} ahead of readers: {} % of {} files",
        tree.path,
        percent.unwrap_or(0),
        tree.found_files
    )
}

fn loading(load: &wire::Job) -> String {
    let more = if load.is_listed { "" } else { "+" };
    format!(
        "{}: {} of {}{more} files, {} of {}{more}; 'forebay jobs' shows more",
        load.path,
        load.cached_files,
        load.found_files,
        size(load.cached_bytes),
        size(load.found_bytes)
    )
}

fn staged(staged: &wire::Staged) -> String {
    let mut text = format!(
        "{} files, {}, the first for {}",
        staged.files,
        size(staged.bytes),
        uptime(staged.oldest_seconds)
    );
    if let Some(failing) = &staged.failing {
        text.push_str(&format!("; tried again: {failing}"));
    }
    text
}

fn names(names: wire::Names) -> String {
    let mut parts = Vec::new();
    for (count, what) in [
        (
            names.left_out,
            "left out of listings: no file system can show them",
        ),
        (
            names.served_old,
            "answered from old knowledge: the storage was away",
        ),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join("; ")
}

fn hits(cache: &wire::Cache) -> String {
    let mut text = match cache.hit_ratio {
        Some(ratio) => format!(
            "{:.1} % of {} read",
            ratio * 100.0,
            size(cache.served_bytes)
        ),
        None => "nothing read yet".to_owned(),
    };
    for (count, what) in [
        (cache.evictions, "evicted"),
        (cache.corrupt_pages, "pages corrupt"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {count} {what}"));
        }
    }
    text
}

fn passthrough(kernel: &wire::Kernel) -> String {
    match (&kernel.passthrough.available, &kernel.passthrough.reason) {
        (true, _) => "on".to_owned(),
        (false, Some(reason)) => format!("off: {reason}"),
        (false, None) => "off".to_owned(),
    }
}

fn transport(kernel: &wire::Kernel) -> String {
    match &kernel.without_rings {
        Some(reason) => format!("over {}; not over io_uring: {reason}", kernel.transport),
        None => format!("over {}", kernel.transport),
    }
}

/// Shows room that is left, rounded down: what is used of 10 GiB must not leave 10 GiB.
fn room(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) if !bytes.is_multiple_of(unit) => {
            let tenths = bytes % unit * 10 / unit;
            format!("{}.{tenths} {name}", bytes / unit)
        }
        _ => size(bytes).to_string(),
    }
}

fn size(bytes: u64) -> ByteSize {
    ByteSize(bytes)
}

/// Shows an uptime in its two largest units.
fn uptime(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!(
            "{} {}h",
            show_duration(Duration::from_secs(seconds / 86_400 * 86_400)),
            seconds % 86_400 / 3_600
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_what_is_served_and_what_went_wrong() {
        let mut status = wire::Status {
            version: "1.2".into(),
            pid: 7,
            uptime_seconds: 3_725,
            mount_point: "/mnt/data".into(),
            mounts: vec![wire::Mount {
                at: "/".into(),
                uri: "s3://b/".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        status.cache.hit_ratio = Some(0.5);
        status.mounts[0].requests.retries = 3;
        status.mounts[0].fault = Some("no answer".into());
        status.trees_ahead.push(wire::TreeAhead {
            path: "/train".into(),
            found_files: 200,
            cached_files: 82,
        });
        status.loads.push(wire::Job {
            path: "/val".into(),
            found_files: 31,
            cached_files: 7,
            ..Default::default()
        });
        status.pins.push("/train".into());
        status.cache.pinned_objects = 12;
        status.kernel.passthrough.reason = Some("no CAP_SYS_ADMIN".into());
        status.last_errors.push(wire::Event {
            message: "slow disk".into(),
            ..Default::default()
        });
        let text = table(&status).to_string();
        for part in [
            "/mnt/data",
            "pid 7",
            "1h 2m",
            "s3://b/",
            "50.0 %",
            "3 retried",
            "no answer",
            "/val: 7 of 31+ files",
            "loading /train ahead of readers: 41 %",
            "/train: 0 B of 12 objects",
            "SYS_ADMIN",
            "slow disk",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn what_is_left_is_never_as_much_as_there_was() {
        assert_eq!(room((10 << 30) - 70_000), "9.9 GiB");
        assert_eq!(room(10 << 30), "10 GiB");
        assert_eq!(room((1 << 20) - 1), "1024.0 KiB");
        assert_eq!(room(0), "0 B");
    }

    #[test]
    fn uptimes_are_short() {
        assert_eq!(uptime(5), "5s");
        assert_eq!(uptime(65), "1m 5s");
        assert_eq!(uptime(3_725), "1h 2m");
        assert_eq!(uptime(90_000), "1d 1h");
    }

    #[test]
    fn without_daemons_there_is_an_error_and_not_an_empty_table() {
        let dir = tempfile::tempdir().unwrap();
        let args = StatusArgs {
            dir: None,
            remote: crate::cli::RemoteArgs::default(),
            json: false,
        };
        let error = run(&args, Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("forebay mount"), "{error}");
    }
}
