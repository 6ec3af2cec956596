// SPDX-License-Identifier: Apache-2.0
//! Mount point, cache directory and local sources must lie apart.
//!
//! A mount point in the directory that it shows would contain itself, a cache directory in it would
//! be data, and whatever lies below a mount point is hidden by the mount. All of this would be
//! accepted by the kernel, so it is looked for here, before anything is made.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Where the things of one daemon lie.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    mount_point: PathBuf,
    cache_dir: PathBuf,
}

impl Layout {
    /// Takes a mount point without links, and a cache directory that may not be there yet.
    pub(crate) fn new(mount_point: &Path, cache_dir: &Path) -> Layout {
        Layout {
            mount_point: mount_point.to_owned(),
            cache_dir: cache_dir.to_owned(),
        }
    }

    /// Refuses a mount point and a cache directory that do not go together.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (point, cache) = (&self.mount_point, &self.cache_dir);
        let (shown, dir) = (point.display(), cache.display());
        if *point == Path::new("/") {
            return Err("nothing can be mounted over '/': give an empty directory".to_owned());
        }
        if is_within(cache, point) {
            return Err(format!(
                "cache directory '{dir}' is inside the mount point '{shown}', which hides it: give \
                 another with --cache-dir"
            ));
        }
        if is_within(point, cache) {
            return Err(format!(
                "mount point '{shown}' is inside the cache directory '{dir}': give another"
            ));
        }
        Ok(())
    }

    /// Refuses a storage on this machine that lies where the mount or the cache does.
    pub(crate) fn check_source(&self, uri: &str) -> Result<(), String> {
        let Some(source) = local_path(uri) else {
            return Ok(());
        };
        let (point, cache) = (self.mount_point.display(), self.cache_dir.display());
        let shown = source.display();
        // First what can be told without asking anything below the mount point.
        if is_within(&source, &self.mount_point) {
            return Err(format!(
                "'{shown}' is inside the mount point '{point}', which would hide it: mount it \
                 elsewhere"
            ));
        }
        if is_within(&self.mount_point, &source) {
            return Err(format!(
                "mount point '{point}' is inside '{shown}': the mount would contain itself; give a \
                 directory outside"
            ));
        }
        if is_within(&self.cache_dir, &source) {
            return Err(format!(
                "cache directory '{cache}' is inside '{shown}': the cache would show up in the \
                 data; give another with --cache-dir"
            ));
        }
        if is_within(&source, &self.cache_dir) {
            return Err(format!(
                "'{shown}' is inside the cache directory '{cache}', which is for the cache alone: \
                 give another with --cache-dir"
            ));
        }
        Ok(())
    }
}

/// Returns whether a path is a directory or lies below it, as written or without links.
fn is_within(path: &Path, dir: &Path) -> bool {
    path.starts_with(dir) || resolved(path).starts_with(resolved(dir))
}

/// Returns a path without links, as far as it is there.
fn resolved(path: &Path) -> PathBuf {
    let known = path.ancestors().find_map(|dir| {
        let real = dir.canonicalize().ok()?;
        Some(real.join(path.strip_prefix(dir).ok()?))
    });
    known.unwrap_or_else(|| path.to_owned())
}

/// Returns the directory of a storage that is one of this machine.
fn local_path(uri: &str) -> Option<PathBuf> {
    let path = match uri.strip_prefix("file://") {
        Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
        None => uri,
    };
    path.starts_with('/')
        .then(|| PathBuf::from(OsStr::new(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_inside_each_other_is_refused_also_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("data/sub")).unwrap();
        std::os::unix::fs::symlink(root.join("data"), root.join("link")).unwrap();
        let check = |point: &str, cache: &str, source: &str| {
            let layout = Layout::new(&root.join(point), &root.join(cache));
            let uri = format!("file://{}", root.join(source).display());
            let bare = root.join(source).display().to_string();
            let answer = layout.check().and_then(|()| layout.check_source(&uri));
            let same = layout.check().and_then(|()| layout.check_source(&bare));
            assert_eq!(answer, same);
            answer.err().unwrap_or_default()
        };
        for (point, cache, source, words) in [
            ("m", "c", "data", ""),
            ("data-m", "data-c", "data", ""),
            ("m", "m", "data", "is inside the mount point"),
            ("m", "m/c/d", "data", "is inside the mount point"),
            ("c/m", "c", "data", "inside the cache directory"),
            ("data", "c", "data", "would hide it"),
            ("data", "c", "data/sub", "would hide it"),
            ("data/sub", "c", "data", "contain itself"),
            ("data/sub", "c", "link", "contain itself"),
            ("m", "data", "data", "show up in the data"),
            ("m", "link/new/cache", "data", "show up in the data"),
            ("m", "c", "c/data", "for the cache alone"),
        ] {
            let said = check(point, cache, source);
            assert_eq!(said.is_empty(), words.is_empty(), "{source}: {said}");
            assert!(said.contains(words), "{words} in {said}");
        }
    }

    #[test]
    fn a_remote_storage_lies_nowhere_here_and_the_root_is_no_mount_point() {
        let layout = Layout::new(Path::new("/m"), Path::new("/c"));
        assert_eq!(layout.check_source("s3://m/c"), Ok(()));
        let root = Layout::new(Path::new("/"), Path::new("/c"));
        assert!(!root.check().unwrap_err().contains("umount"));
    }
}
