// SPDX-License-Identifier: Apache-2.0
//! `forebay rules`: how long what is cached of a path stays, how much it may take, and what gives way
//! first.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use futures::future::join_all;
use gateway::{Client, wire};
use serde::Serialize;
use types::ByteSize;

use super::mounts::{block_on, daemons};
use crate::cli::{RulesCommand, RulesListArgs, RulesRemoveArgs, RulesSetArgs};
use crate::places;
use crate::records;
use crate::usage;
use crate::values::show_duration;

/// A tree of millions of files takes minutes to list.
const SET_MAX: Duration = Duration::from_secs(3600);
/// What is known is answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report {
    daemons: Vec<wire::RuleList>,
}

/// Carries out one of the verbs.
pub(crate) fn run(command: &RulesCommand, run_dir: Option<&Path>) -> Result<()> {
    match command {
        RulesCommand::Set(args) => set(args, run_dir),
        RulesCommand::List(args) => list(args, run_dir),
        RulesCommand::Remove(args) => remove(args, run_dir),
    }
}

fn set(args: &RulesSetArgs, run_dir: Option<&Path>) -> Result<()> {
    let (client, path) = chosen(&args.path, run_dir)?;
    let request = wire::SetRule {
        path,
        ttl_seconds: args.ttl.map(whole_seconds),
        quota_bytes: args.quota.map(|size| size.0),
        priority: args.priority.clone(),
    };
    let rule = block_on(client.set_rule(&request, SET_MAX))?;
    let rule = rule.map_err(usage::if_invalid)?;
    match args.json {
        true => print_json(&rule),
        false => {
            super::tell(told(&args.path.display().to_string(), &rule));
            Ok(())
        }
    }
}

fn remove(args: &RulesRemoveArgs, run_dir: Option<&Path>) -> Result<()> {
    let (client, path) = chosen(&args.path, run_dir)?;
    let request = wire::RemoveRule {
        path,
        ttl: args.ttl,
        quota: args.quota,
        priority: args.priority,
    };
    let rule = block_on(client.remove_rule(&request, SET_MAX))?;
    let rule = rule.map_err(usage::if_invalid)?;
    match args.json {
        true => print_json(&rule),
        false => {
            super::tell(told(&args.path.display().to_string(), &rule));
            Ok(())
        }
    }
}

fn list(args: &RulesListArgs, run_dir: Option<&Path>) -> Result<()> {
    let daemons = daemons(&args.daemon, run_dir)?;
    let asked = daemons.iter().map(|daemon| async move {
        let client = Client::new(&daemon.socket);
        client.rules(PATIENCE).await
    });
    let lists = block_on(join_all(asked))?;
    let report = Report {
        daemons: lists.into_iter().collect::<types::Result<_>>()?,
    };
    match args.json {
        true => print_json(&report),
        false => super::answer(table(&report)),
    }
}

fn chosen(path: &Path, run_dir: Option<&Path>) -> Result<(Client, String)> {
    let live = records::scan(&places::run_dirs(run_dir))?.live;
    let (daemon, path) = super::sync::choose(live, path)?;
    Ok((Client::new(&daemon.socket), path))
}

/// Less than a second is told apart by nothing.
fn whole_seconds(ttl: Duration) -> u64 {
    ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)
}

/// Puts what holds for a path into words.
fn told(path: &str, rule: &wire::Rule) -> String {
    let mut parts = Vec::new();
    if let Some(ttl) = rule.ttl_seconds {
        let ttl = show_duration(Duration::from_secs(ttl));
        parts.push(format!("what is cached goes after {ttl}"));
    }
    if let Some(quota) = rule.quota_bytes {
        parts.push(format!(
            "at most {} are cached, {} are now",
            ByteSize(quota),
            ByteSize(rule.cached_bytes)
        ));
    }
    match rule.priority.as_deref() {
        Some("low") => parts.push("it gives way before all else".to_owned()),
        Some("high") => parts.push("it gives way after all else".to_owned()),
        Some(_) => parts.push("it gives way as all else".to_owned()),
        None => {}
    }
    match parts.is_empty() {
        true => format!("{path}: nothing is said of it any more; what is cached stays\n"),
        false => format!("{path}: {}\n", parts.join("; ")),
    }
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    for list in &report.daemons {
        if list.rules.is_empty() {
            writeln!(text, "{}: no path has a rule", list.mount_point).ok();
            continue;
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["PATH", "TTL", "QUOTA", "PRIORITY", "CACHED"]);
        for rule in &list.rules {
            let none = || "-".to_owned();
            table.add_row([
                format!("{}{}", list.mount_point, rule.path.trim_end_matches('/')),
                rule.ttl_seconds
                    .map_or_else(none, |ttl| show_duration(Duration::from_secs(ttl))),
                rule.quota_bytes
                    .map_or_else(none, |quota| ByteSize(quota).to_string()),
                rule.priority.clone().unwrap_or_else(none),
                ByteSize(rule.cached_bytes).to_string(),
            ]);
        }
        writeln!(text, "{table}").ok();
    }
    text
}

fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("write JSON")?;
    super::answer(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_told_with_what_it_means() {
        let mut rule = wire::Rule {
            ttl_seconds: Some(604_800),
            quota_bytes: Some(10 << 30),
            priority: Some("low".into()),
            cached_bytes: 1 << 30,
            ..wire::Rule::default()
        };
        assert_eq!(
            told("/m/a", &rule),
            "/m/a: what is cached goes after 7d; at most 10 GiB are cached, 1 GiB are now; it gives \
             way before all else\n"
        );
        rule = wire::Rule::default();
        assert!(told("/m/a", &rule).contains("nothing is said"));
    }

    #[test]
    fn a_table_shows_paths_as_they_are_typed() {
        let report = Report {
            daemons: vec![
                wire::RuleList {
                    mount_point: "/mnt/data".into(),
                    rules: vec![wire::Rule {
                        path: "/".into(),
                        ttl_seconds: Some(90),
                        ..wire::Rule::default()
                    }],
                },
                wire::RuleList {
                    mount_point: "/mnt/other".into(),
                    rules: Vec::new(),
                },
            ],
        };
        let text = table(&report);
        for part in [
            "/mnt/data ",
            "90s",
            "PRIORITY",
            "/mnt/other: no path has a rule",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(whole_seconds(Duration::from_millis(1500)), 2);
    }
}
