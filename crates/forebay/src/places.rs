// SPDX-License-Identifier: Apache-2.0
//! Where things lie on this machine: the run directory, default cache and log, mount points.
//!
//! Root uses /run, /var/cache and /var/log; other users their XDG directories. What belongs to one
//! mount point is named after it, so that the same command finds the same cache again.

use std::io::ErrorKind as Io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

/// Resolves a mount point without asking the file system that may hang or be dead there: its
/// parent is resolved, its last name is taken as it is unless it is a symbolic link.
pub(crate) fn mount_point(dir: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(dir).with_context(|| format!("path '{}'", dir.display()))?;
    if path.to_str().is_none() {
        bail!(
            "mount point '{}' is not UTF-8: choose another name",
            dir.display()
        );
    }
    let Some(Component::Normal(name)) = path.components().next_back() else {
        return path
            .canonicalize()
            .with_context(|| format!("path '{}'", dir.display()));
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent = parent.canonicalize().map_err(|error| {
        let shown = path.display();
        match error.kind() {
            Io::NotFound => {
                anyhow!("mount point {shown} is missing; make it with 'mkdir -p {shown}'")
            }
            _ => anyhow!("mount point {shown} cannot be used: {error}"),
        }
    })?;
    let resolved = parent.join(name);
    // Reading a link is the one question that the kernel answers without asking a mount's daemon.
    match resolved.read_link() {
        Ok(_) => resolved
            .canonicalize()
            .with_context(|| format!("follow '{}'", dir.display())),
        Err(_) => Ok(resolved),
    }
}

/// Resolves a mount point that something may be mounted on, for commands that mount nothing.
pub(crate) fn mounted_at(dir: &Path) -> Result<PathBuf> {
    let missing = || {
        let shown = dir.display();
        anyhow!("'{shown}' does not exist; 'forebay status' lists the mounts")
    };
    let path = std::path::absolute(dir).with_context(|| format!("path '{}'", dir.display()))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    // Whether it is there itself is not asked: a daemon may hang behind it.
    if matches!(parent.try_exists(), Ok(false)) {
        return Err(missing());
    }
    mount_point(&path)
}

/// Returns the name under which things of a mount point are filed: 16 hexadecimal digits.
pub(crate) fn key(mount_point: &Path) -> String {
    let hash = blake3::hash(mount_point.as_os_str().as_encoded_bytes());
    hash.to_hex().as_str()[..16].to_owned()
}

/// Returns the directory of this user's sockets and records.
pub(crate) fn run_dir(flag: Option<&Path>) -> PathBuf {
    if let Some(dir) = flag {
        return std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    }
    let uid = rustix::process::geteuid().as_raw();
    run_dir_of(uid, env_dir("XDG_RUNTIME_DIR"))
}

fn run_dir_of(uid: u32, runtime_dir: Option<PathBuf>) -> PathBuf {
    match (uid, runtime_dir) {
        (0, _) => "/run/forebay".into(),
        (_, Some(dir)) => dir.join("forebay"),
        (_, None) => format!("/tmp/forebay-{uid}").into(),
    }
}

/// Returns the run directories to look into: of this user, and for root of all users. A daemon may
/// have been started where the environment named another directory than here.
pub(crate) fn run_dirs(flag: Option<&Path>) -> Vec<PathBuf> {
    let mut dirs = vec![run_dir(flag)];
    if flag.is_some() {
        return dirs;
    }
    let uid = rustix::process::geteuid().as_raw();
    let usual = match uid {
        0 => children("/run/user"),
        uid => vec![format!("/run/user/{uid}").into()],
    };
    dirs.extend(usual.into_iter().map(|dir| dir.join("forebay")));
    let temporary = children("/tmp").into_iter();
    dirs.extend(temporary.filter(|dir| uid == 0 || dir.ends_with(format!("forebay-{uid}"))));
    dirs.retain(|dir| !dir.starts_with("/tmp") || is_of_its_user(dir));
    dirs.extend(
        children("/proc")
            .iter()
            .filter_map(|one| run_dir_of_process(one)),
    );
    let mut seen = std::collections::HashSet::new();
    dirs.retain(|dir| seen.insert(dir.clone()));
    dirs
}

/// Returns the run directory of a running daemon, from its environment. Only a directory of its own
/// user is believed.
fn run_dir_of_process(process: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let name = std::fs::read_to_string(process.join("comm")).ok()?;
    if name.trim_end() != "forebay" {
        return None;
    }
    let uid = process.metadata().ok()?.uid();
    let environment = std::fs::read(process.join("environ")).ok()?;
    let variable = |name: &str| {
        let mut all = environment.split(|&byte| byte == 0);
        let value = all.find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        let dir = PathBuf::from(std::ffi::OsStr::from_bytes(value));
        dir.is_absolute().then_some(dir)
    };
    let dir = match variable("FOREBAY_RUN_DIR") {
        Some(dir) => dir,
        None => run_dir_of(uid, variable("XDG_RUNTIME_DIR")),
    };
    let found = dir.symlink_metadata().ok()?;
    (found.is_dir() && found.uid() == uid).then_some(dir)
}

/// Returns whether a path is `forebay-UID`, a directory of that user: in /tmp anybody may put
/// anything under such a name.
fn is_of_its_user(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let uid = name
        .strip_prefix("forebay-")
        .and_then(|uid| uid.parse::<u32>().ok());
    dir.symlink_metadata()
        .is_ok_and(|meta| meta.is_dir() && Some(meta.uid()) == uid)
}

/// Returns the default cache directory of a mount point.
pub(crate) fn default_cache(mount_point: &Path) -> Result<PathBuf> {
    let base = base_dir("/var/cache", "XDG_CACHE_HOME", ".cache")
        .context("no place for a cache: give --cache-dir, or set HOME")?;
    Ok(base.join("forebay").join(label(mount_point)))
}

/// Returns the directory that default caches lie in.
pub(crate) fn default_caches() -> Option<PathBuf> {
    Some(base_dir("/var/cache", "XDG_CACHE_HOME", ".cache")?.join("forebay"))
}

/// Returns the default log file of a mount point.
pub(crate) fn default_log(mount_point: &Path) -> Result<PathBuf> {
    let base = base_dir("/var/log", "XDG_STATE_HOME", ".local/state")
        .context("no place for a log: give --log, or set HOME")?;
    Ok(base
        .join("forebay")
        .join(format!("{}.log", label(mount_point))))
}

/// Returns the file in which the mounts that were added to a running daemon are kept; none where
/// there is no place for it.
pub(crate) fn state_file(dir: Option<&Path>, mount_point: &Path) -> Option<PathBuf> {
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => base_dir("/var/lib", "XDG_STATE_HOME", ".local/state")?.join("forebay"),
    };
    Some(dir.join(format!("{}.mounts.json", label(mount_point))))
}

/// Returns the file in which the loads are kept that run, beside that of the mounts.
pub(crate) fn jobs_file(state_file: &Path) -> PathBuf {
    beside(state_file, "jobs")
}

/// Returns the file in which the pinned paths are kept, beside that of the mounts.
pub(crate) fn pins_file(state_file: &Path) -> PathBuf {
    beside(state_file, "pins")
}

/// Returns a file of the admin API over TCP, beside that of the mounts.
pub(crate) fn admin_file(state_file: &Path, what: &str) -> PathBuf {
    named_beside(state_file, &format!("admin-{what}"))
}

/// Returns the file in which the rules of paths are kept, beside that of the mounts.
pub(crate) fn rules_file(state_file: &Path) -> PathBuf {
    beside(state_file, "rules")
}

fn beside(state_file: &Path, what: &str) -> PathBuf {
    named_beside(state_file, &format!("{what}.json"))
}

fn named_beside(state_file: &Path, what: &str) -> PathBuf {
    let name = state_file.file_name().unwrap_or_default().to_string_lossy();
    let label = name.strip_suffix(".mounts.json").unwrap_or(&name);
    state_file.with_file_name(format!("{label}.{what}"))
}

/// Returns a name for people, which the key makes unique: `data-0123456789abcdef`.
fn label(mount_point: &Path) -> String {
    let name = mount_point
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let name: String = name.chars().take(40).map(safe).collect();
    format!("{}-{}", name.trim_start_matches('.'), key(mount_point))
}

/// Returns the topmost directory on the way to `path` that is not there yet.
pub(crate) fn topmost_missing(path: &Path) -> Option<PathBuf> {
    let missing = |dir: &&Path| matches!(dir.try_exists(), Ok(false));
    path.ancestors()
        .take_while(missing)
        .last()
        .map(Path::to_owned)
}

fn base_dir(of_root: &str, variable: &str, below_home: &str) -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(of_root.into());
    }
    env_dir(variable).or_else(|| env_dir("HOME").map(|home| home.join(below_home)))
}

fn env_dir(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
}

fn children(dir: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_the_same_however_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("data");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        for path in ["data", "data/", "./data", "data/../data", "link"] {
            assert_eq!(mount_point(&dir.path().join(path)).unwrap(), real, "{path}");
        }
    }

    #[test]
    fn a_mount_point_below_nothing_is_named_in_the_error() {
        let error = format!(
            "{:#}",
            mount_point(Path::new("/nowhere/at/all")).unwrap_err()
        );
        assert!(
            error.contains("/nowhere/at/all") && error.contains("mkdir"),
            "{error}"
        );
    }

    #[test]
    fn what_is_to_be_unmounted_is_not_to_be_made_first() {
        let error = mounted_at(Path::new("/nowhere/at/all")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("does not exist") && !text.contains("mkdir"),
            "{text}"
        );
    }

    #[test]
    fn run_directories_are_looked_into_once_and_a_flag_names_the_only_one() {
        let dirs = run_dirs(None);
        let mut unique = dirs.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), dirs.len(), "{dirs:?}");
        assert_eq!(run_dirs(Some(Path::new("/x"))), [PathBuf::from("/x")]);
    }

    #[test]
    fn each_mount_point_has_its_own_cache_and_log() {
        let (a, b) = (Path::new("/mnt/a/data"), Path::new("/mnt/b/data"));
        assert_ne!(default_cache(a).unwrap(), default_cache(b).unwrap());
        assert_eq!(default_cache(a).unwrap(), default_cache(a).unwrap());
        assert!(default_log(a).unwrap().to_string_lossy().ends_with(".log"));
        assert_eq!(label(Path::new("/..odd na/me")).matches('/').count(), 0);
    }
}
