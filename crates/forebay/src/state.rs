// SPDX-License-Identifier: Apache-2.0
//! What a daemon remembers of the mounts that were added to it while it ran, and of the loads that
//! run and the paths that are pinned or have rules.
//!
//! One JSON file of each for each mount point, of mode 0600, replaced whole or not at all. It holds
//! references to secrets and no secret. A file that cannot be read does not keep a daemon from
//! starting: it is put aside, and the user is told.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use gateway::wire;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::plan::MountPlan;
use crate::rules::PathRule;

/// The version of the file; one of a later version is not touched.
const VERSION: u32 = 1;

/// A mount that was added to a running daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// What was asked for, with every default of then.
    #[serde(flatten)]
    pub(crate) mount: MountPlan,
    /// What its names and bytes were kept under, should its storage be away when it is mounted again.
    pub(crate) identity: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    mounts: Vec<Remembered>,
}

#[derive(Debug, Serialize, Deserialize)]
struct JobState {
    version: u32,
    loads: Vec<wire::Load>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PinState {
    version: u32,
    paths: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RuleState {
    version: u32,
    rules: Vec<PathRule>,
}

/// Reads what is remembered; nothing where there is no file.
pub(crate) fn load(path: &Path) -> Result<Vec<Remembered>> {
    let Some(state) = read::<State>(path)? else {
        return Ok(Vec::new());
    };
    check_version(path, state.version)?;
    Ok(state.mounts)
}

/// Reads the requests of the loads that ran; nothing where there is no file.
pub(crate) fn load_jobs(path: &Path) -> Result<Vec<wire::Load>> {
    let Some(state) = read::<JobState>(path)? else {
        return Ok(Vec::new());
    };
    check_version(path, state.version)?;
    Ok(state.loads)
}

/// Reads the paths that are pinned; nothing where there is no file.
pub(crate) fn load_pins(path: &Path) -> Result<Vec<String>> {
    let Some(state) = read::<PinState>(path)? else {
        return Ok(Vec::new());
    };
    check_version(path, state.version)?;
    Ok(state.paths)
}

/// Reads the rules of paths; nothing where there is no file.
pub(crate) fn load_rules(path: &Path) -> Result<Vec<PathRule>> {
    let Some(state) = read::<RuleState>(path)? else {
        return Ok(Vec::new());
    };
    check_version(path, state.version)?;
    Ok(state.rules)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let what = || format!("read '{}'", path.display());
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(what),
    };
    serde_json::from_str(&text).with_context(what)
}

fn check_version(path: &Path, version: u32) -> Result<()> {
    if version != VERSION {
        bail!(
            "read '{}': its version {version} is not {VERSION}",
            path.display()
        );
    }
    Ok(())
}

/// Puts aside a file that cannot be read, so that nothing of it is lost when another is written.
pub(crate) fn put_aside(path: &Path) {
    let aside = path.with_extension("json.unreadable");
    if let Err(error) = std::fs::rename(path, &aside) {
        tracing::warn!("put '{}' aside: {error}", path.display());
    }
}

/// Remembers these mounts in place of what was remembered before.
pub(crate) fn store(path: &Path, mounts: Vec<Remembered>) -> Result<()> {
    let version = VERSION;
    write(path, &State { version, mounts })
}

/// Remembers these loads in place of what was remembered before.
pub(crate) fn store_jobs(path: &Path, loads: Vec<wire::Load>) -> Result<()> {
    let version = VERSION;
    write(path, &JobState { version, loads })
}

/// Remembers these pinned paths in place of what was remembered before.
pub(crate) fn store_pins(path: &Path, paths: Vec<String>) -> Result<()> {
    let version = VERSION;
    write(path, &PinState { version, paths })
}

/// Remembers these rules in place of what was remembered before.
pub(crate) fn store_rules(path: &Path, rules: Vec<PathRule>) -> Result<()> {
    let version = VERSION;
    write(path, &RuleState { version, rules })
}

fn write(path: &Path, state: &impl Serialize) -> Result<()> {
    let what = || format!("write '{}'", path.display());
    let mut text = serde_json::to_vec_pretty(state).with_context(what)?;
    text.push(b'\n');
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(dir);
    made.with_context(what)?;
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&part).with_context(what)?;
    file.write_all(&text).with_context(what)?;
    // A crash leaves the old file or the new one.
    file.sync_all().with_context(what)?;
    std::fs::rename(&part, path).with_context(what)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::credentials::Credentials;

    #[test]
    fn what_is_remembered_comes_back_and_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/data.mounts.json");
        assert_eq!(load(&path).unwrap(), []);
        let mut mount = MountPlan::with_defaults("x/y".into(), "s3://b/p".into());
        mount.credentials = Credentials::parse(&["env:PATH".into()]).unwrap();
        mount.options.insert("region".into(), "eu-1".into());
        let identity = "s3://b/p/ at h".to_owned();
        let remembered = vec![Remembered { mount, identity }];
        store(&path, remembered.clone()).unwrap();
        store(&path, remembered.clone()).unwrap();
        assert_eq!(load(&path).unwrap(), remembered);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("env:PATH") && !text.contains(&std::env::var("PATH").unwrap()));
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_file_of_another_version_or_of_nobody_knows_what_is_put_aside_and_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.mounts.json");
        for text in ["{\"version\": 99, \"mounts\": []}", "garbage"] {
            std::fs::write(&path, text).unwrap();
            assert!(load(&path).is_err());
            put_aside(&path);
            assert_eq!(load(&path).unwrap(), []);
            let aside = path.with_extension("json.unreadable");
            assert_eq!(std::fs::read_to_string(aside).unwrap(), text);
        }
    }
}
