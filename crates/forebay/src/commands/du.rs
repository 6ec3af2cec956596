// SPDX-License-Identifier: Apache-2.0
//! `forebay du`: how much there is at a path, and how much of it is cached.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use gateway::{Client, wire};
use types::ByteSize;

use super::mounts::block_on;
use crate::cli::DuArgs;
use crate::places;
use crate::records;
use crate::usage;
use crate::values::show_duration;

/// A tree of millions of files takes minutes to list.
const DU_MAX: Duration = Duration::from_secs(3600);

/// Measures paths.
pub(crate) fn run(args: &DuArgs, run_dir: Option<&Path>) -> Result<()> {
    let live = records::scan(&places::run_dirs(run_dir))?.live;
    let mut usages = Vec::new();
    for asked in &args.paths {
        let (daemon, path) = super::sync::choose(live.clone(), asked)?;
        let client = Client::new(&daemon.socket);
        let names = false;
        let measure = wire::Measure { path, names };
        let usage = block_on(client.usage(&measure, DU_MAX))?;
        usages.push((asked, usage.map_err(usage::if_invalid)?));
    }
    if args.json {
        let usages: Vec<_> = usages.into_iter().map(|(_, usage)| usage).collect();
        let text = serde_json::to_string_pretty(&usages).context("write JSON")?;
        return super::answer(text + "\n");
    }
    let has_rules = usages.iter().any(|(_, usage)| usage.rule.is_some());
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    let mut header = vec!["PATH", "FILES", "SIZE", "CACHED", "SHARE", "PINNED"];
    header.extend(has_rules.then_some("RULES"));
    table.set_header(header);
    for (path, usage) in &usages {
        let mut row = vec![
            path.display().to_string(),
            usage.files.to_string(),
            ByteSize(usage.bytes).to_string(),
            ByteSize(usage.cached_bytes).to_string(),
            share(usage),
            ByteSize(usage.pinned_bytes).to_string(),
        ];
        row.extend(has_rules.then(|| rules(usage)));
        table.add_row(row);
    }
    super::answer(format_args!("{table}\n"))
}

/// Shows what holds for the cached bytes.
fn rules(usage: &wire::Usage) -> String {
    let Some(rule) = &usage.rule else {
        return "-".to_owned();
    };
    let mut parts = Vec::new();
    if let Some(ttl) = rule.ttl_seconds {
        let ttl = show_duration(Duration::from_secs(ttl));
        parts.push(format!("goes after {ttl}"));
    }
    if let (Some(quota), Some(path)) = (rule.quota_bytes, &rule.quota_path) {
        parts.push(match *path == usage.path {
            true => format!("at most {}", ByteSize(quota)),
            false => format!("at most {} with {path}", ByteSize(quota)),
        });
    }
    if let Some(priority) = &rule.priority {
        parts.push(format!("{priority} priority"));
    }
    parts.join(", ")
}

/// Shows the cached share, and 100 % only where all of it is.
fn share(usage: &wire::Usage) -> String {
    let cached = u128::from(usage.cached_bytes) * 100;
    match cached.checked_div(u128::from(usage.bytes)) {
        Some(percent) => format!("{percent} %"),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_and_nothing_has_none() {
        let usage = |cached_bytes, bytes| wire::Usage {
            bytes,
            cached_bytes,
            ..wire::Usage::default()
        };
        assert_eq!(share(&usage(999, 1000)), "99 %");
        assert_eq!(share(&usage(7, 7)), "100 %");
        assert_eq!(share(&usage(0, 0)), "-");
    }

    #[test]
    fn rules_are_told_with_whose_quota_it_is() {
        let mut usage = wire::Usage {
            path: "/a/b".into(),
            ..wire::Usage::default()
        };
        assert_eq!(rules(&usage), "-");
        usage.rule = Some(wire::RuleInForce {
            ttl_seconds: Some(3600),
            quota_bytes: Some(1 << 20),
            quota_path: Some("/a".into()),
            priority: Some("high".into()),
        });
        assert_eq!(
            rules(&usage),
            "goes after 1h, at most 1 MiB with /a, high priority"
        );
    }
}
