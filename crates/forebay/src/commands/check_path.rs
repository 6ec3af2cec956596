// SPDX-License-Identifier: Apache-2.0
//! `forebay check`: is what is cached of a path what the storage has?

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gateway::{Client, wire};
use types::ByteSize;

use super::mounts::block_on;
use super::waiting::while_waiting;
use crate::cli::CheckPathArgs;
use crate::places;
use crate::records;
use crate::usage;

/// Reading terabytes from a storage once more takes hours.
const CHECK_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Findings that are shown; `--json` shows some more.
const SHOWN_MAX: usize = 20;

/// Checks a path; fails when something is not as in the storage.
pub(crate) fn run(args: &CheckPathArgs, run_dir: Option<&Path>) -> Result<()> {
    let live = records::scan(&places::run_dirs(run_dir))?.live;
    let (daemon, path) = super::sync::choose(live, &args.path)?;
    let client = Client::new(&daemon.socket);
    let request = wire::Check {
        path,
        bytes: args.bytes,
        drop: args.drop,
    };
    let checked = block_on(while_waiting(
        client.check(&request, CHECK_MAX),
        (&client, args.json),
        |_| Some("comparing the cache with the storage".to_owned()),
    ))?;
    let checked = checked.map_err(usage::if_invalid)?;
    let path = args.path.display().to_string();
    match args.json {
        true => {
            let text = serde_json::to_string_pretty(&checked).context("write JSON")?;
            super::answer(text + "\n")?;
        }
        false => super::tell(told(&path, &checked, args.bytes)),
    }
    match fault(&checked, args.drop) {
        None => Ok(()),
        Some(fault) => bail!("'{path}': {fault}"),
    }
}

fn told(path: &str, checked: &wire::Checked, bytes: bool) -> String {
    let mut text = String::new();
    for one in checked.findings.iter().take(SHOWN_MAX) {
        writeln!(text, "{}: {}", one.path, one.why).ok();
    }
    let all = checked.stale_files + checked.gone_files + checked.different_files + checked.unknown;
    let more = all.saturating_sub(SHOWN_MAX as u64);
    if more > 0 {
        writeln!(text, "and {more} more").ok();
    }
    write!(
        text,
        "{path}: of {} files in the storage, {} are cached, {}",
        checked.files,
        checked.cached_files,
        ByteSize(checked.cached_bytes)
    )
    .ok();
    if bytes {
        write!(text, "; {} compared", ByteSize(checked.compared_bytes)).ok();
    }
    if checked.dropped > 0 {
        write!(text, "; {} dropped from the cache", checked.dropped).ok();
    }
    text.push('\n');
    text
}

/// Says what is not well, and what to do.
fn fault(checked: &wire::Checked, dropped: bool) -> Option<String> {
    let counts = [
        (checked.different_files, "differ from the storage"),
        (
            checked.stale_files,
            "are cached in another version than the storage has",
        ),
        (
            checked.gone_files,
            "are cached and not in the storage any more",
        ),
        (checked.unknown, "could not be checked"),
    ];
    let parts = counts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<_> = parts
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if parts.is_empty() {
        return None;
    }
    let is_bad = checked.different_files + checked.stale_files + checked.gone_files > 0;
    let advice = match (is_bad, dropped) {
        (false, _) => "",
        (true, true) => {
            "; that was dropped, and 'forebay sync' has the tree show what there is now"
        }
        (true, false) => {
            "; 'forebay sync' has the tree show what there is now, and '--drop' drops the rest"
        }
    };
    Some(format!("{}{advice}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_is_told_with_what_to_do() {
        let mut checked = wire::Checked {
            files: 9,
            cached_files: 7,
            ..wire::Checked::default()
        };
        assert_eq!(fault(&checked, false), None);
        assert!(told("/m", &checked, false).contains("of 9 files"));
        checked.unknown = 1;
        assert_eq!(fault(&checked, false).unwrap(), "1 could not be checked");
        checked.stale_files = 2;
        let said = fault(&checked, false).unwrap();
        assert!(
            said.contains("2 are cached in another") && said.contains("--drop"),
            "{said}"
        );
        checked.findings.push(wire::MissingFile {
            path: "/a".into(),
            why: "x".into(),
        });
        assert!(told("/m", &checked, true).starts_with("/a: x\n"));
    }
}
