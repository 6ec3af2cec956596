// SPDX-License-Identifier: Apache-2.0
//! What the tests of staged files share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::Store;
use cache::staged::{BootId, Recovered, Source, StagedFile, Staging};
use types::{ByteRange, Result, SystemClock};

use crate::support::*;

/// Opens the staged files of a directory without a cache.
pub(crate) fn stage(dir: &Path) -> (Arc<Staging>, Vec<Recovered>) {
    try_stage(dir, None).unwrap()
}

pub(crate) fn try_stage(
    dir: &Path,
    store: Option<Arc<Store>>,
) -> Result<(Arc<Staging>, Vec<Recovered>)> {
    stage_after(dir, store, BOOT)
}

/// The boot that tests run in, unless they say otherwise.
pub(crate) const BOOT: Option<BootId> = Some(BootId([1; 16]));

/// As [`try_stage`], in another boot.
pub(crate) fn stage_after(
    dir: &Path,
    store: Option<Arc<Store>>,
    boot: Option<BootId>,
) -> Result<(Arc<Staging>, Vec<Recovered>)> {
    Staging::open(dir, store, boot, Arc::new(SystemClock))
}

/// The bytes of the older version.
pub(crate) fn old(range: ByteRange) -> Vec<u8> {
    content(77, range)
}

/// Returns what a reader of the whole file sees.
pub(crate) fn seen(file: &StagedFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    for segment in file.segments(whole(u64::MAX)) {
        assert_eq!(segment.range.offset, bytes.len() as u64, "a gap");
        let start = bytes.len();
        match segment.source {
            Source::Base => bytes.extend(old(segment.range)),
            Source::Here | Source::Hole => file.read_at(segment.range, &mut bytes).unwrap(),
        }
        if segment.source == Source::Hole {
            assert!(bytes[start..].iter().all(|byte| *byte == 0));
        }
    }
    assert_eq!(bytes.len() as u64, file.len());
    bytes
}

/// Returns the files of the directory that have the name of a staged file.
pub(crate) fn staged_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("staged")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.file_name().unwrap().len() == 16)
        .collect()
}

pub(crate) fn notes_file(dir: &Path) -> PathBuf {
    dir.join("staged/notes")
}
