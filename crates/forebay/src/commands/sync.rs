// SPDX-License-Identifier: Apache-2.0
//! `forebay sync`: what changed in the storage is seen when this returns.
//!
//! The path says which daemon is meant. It is taken as it is written where that is below a mount
//! point; only a path that leads there through links is resolved, because that asks the mount.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gateway::{Client, wire};

use crate::cli::SyncArgs;
use crate::places;
use crate::records::{self, Record};
use crate::usage;

/// A directory of millions of names takes minutes to list.
const SYNC_MAX: Duration = Duration::from_secs(3600);

/// Syncs a path; fails when a storage could not be asked.
pub(crate) fn run(args: &SyncArgs, run_dir: Option<&Path>) -> Result<()> {
    let live = records::scan(&places::run_dirs(run_dir))?.live;
    let (daemon, path) = choose(live, &args.path)?;
    let wait_seconds = args.wait.then_some(args.timeout.as_secs());
    let request = wire::Sync { path, wait_seconds };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let client = Client::new(&daemon.socket);
    let patience = SYNC_MAX + Duration::from_secs(wait_seconds.unwrap_or(0));
    let synced = runtime.block_on(client.sync(&request, patience));
    let synced = synced.map_err(usage::if_invalid)?;
    match args.json {
        true => {
            let text = serde_json::to_string_pretty(&synced).context("write JSON")?;
            super::answer(text + "\n")?;
        }
        false => tell(&daemon, &synced),
    }
    let failed = synced.places.iter().filter(|place| place.error.is_some());
    match failed.count() {
        0 => Ok(()),
        count => bail!(
            "{count} of {} storages could not be asked",
            synced.places.len()
        ),
    }
}

fn tell(daemon: &Record, synced: &wire::Synced) {
    for place in &synced.places {
        let below = place.path.trim_end_matches('/');
        let shown = format!("{}{below}", daemon.mount_point.display());
        let (found, uri) = (place.found.as_deref(), &place.uri);
        match (&place.error, place.names, found) {
            (Some(error), ..) => super::tell(format_args!("{shown}: not synced: {error}\n")),
            (None, Some(names), _) => {
                let unit = if names == 1 { "name" } else { "names" };
                let text = format_args!("{shown}: synced with {uri}, {names} {unit}\n");
                super::tell(text);
            }
            (None, None, Some("absent")) => {
                super::tell(format_args!(
                    "{shown}: synced with {uri}, is not there any more\n"
                ));
            }
            (None, None, _) => super::tell(format_args!("{shown}: synced with {uri}\n")),
        }
    }
    for notice in &synced.notices {
        super::tell(format_args!("  note: {notice}\n"));
    }
}

/// Returns the daemon in whose tree a path lies, and the path in it.
pub(super) fn choose(live: Vec<Record>, path: &Path) -> Result<(Record, String)> {
    let written =
        std::path::absolute(path).with_context(|| format!("path '{}'", path.display()))?;
    let is_plain = !written
        .components()
        .any(|part| part == Component::ParentDir);
    let found = is_plain.then(|| within(&live, &written)).flatten();
    let found = match found {
        Some(found) => Some(found),
        None => resolved(&written).and_then(|path| within(&live, &path)),
    };
    let Some((daemon, below)) = found else {
        let points = live.iter().map(|one| one.mount_point.display().to_string());
        let points: Vec<_> = points.collect();
        let advice = match points.is_empty() {
            true => "no daemon of this user runs".to_owned(),
            false => format!("the mount points are: {}", points.join(", ")),
        };
        bail!("'{}' is in no mount of forebay; {advice}", path.display());
    };
    let Some(below) = below.to_str() else {
        return Err(usage::wrong(format!(
            "'{}' is not UTF-8: sync the directory around it",
            path.display()
        )));
    };
    Ok((daemon, format!("/{below}")))
}

fn within(live: &[Record], path: &Path) -> Option<(Record, PathBuf)> {
    let around = live.iter().filter(|one| path.starts_with(&one.mount_point));
    // The longest: one mount point may lie in another's tree.
    let daemon = around.max_by_key(|one| one.mount_point.as_os_str().len())?;
    let below = path.strip_prefix(&daemon.mount_point).ok()?;
    Some((daemon.clone(), below.to_owned()))
}

/// Returns a path without links, but for its last name, which may be gone or new.
fn resolved(path: &Path) -> Option<PathBuf> {
    if let Ok(whole) = path.canonicalize() {
        return Some(whole);
    }
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_daemon_as_written_and_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("mnt/in/train")).unwrap();
        std::os::unix::fs::symlink(root.join("mnt"), root.join("data")).unwrap();
        let record = |point: &str| {
            let point = root.join(point);
            Record::of_self(Path::new("/run/x"), &point, Vec::new(), None).unwrap()
        };
        let chosen = |path: &str| {
            let live = vec![record("mnt"), record("mnt/in"), record("other")];
            let chosen = choose(live, &root.join(path));
            chosen.map(|(daemon, at)| {
                let point = daemon.mount_point.strip_prefix(&root).unwrap();
                format!("{} {at}", point.display())
            })
        };
        for (path, expected) in [
            ("mnt", "mnt /"),
            ("mnt/", "mnt /"),
            ("mnt/new/deep", "mnt /new/deep"),
            ("mnt/in/train/x", "mnt/in /train/x"),
            ("data/in/train", "mnt/in /train"),
            ("data/gone", "mnt /gone"),
            ("mnt/in/../x", "mnt /x"),
            ("other/x", "other /x"),
        ] {
            assert_eq!(chosen(path).unwrap(), expected, "{path}");
        }
        let error = chosen("elsewhere").unwrap_err().to_string();
        assert!(
            error.contains("no mount") && error.contains("other"),
            "{error}"
        );
        let error = choose(Vec::new(), Path::new("/x")).unwrap_err();
        assert!(error.to_string().contains("no daemon"), "{error}");
    }
}
