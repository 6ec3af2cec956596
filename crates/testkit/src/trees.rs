// SPDX-License-Identifier: Apache-2.0
//! Whole directory trees as values, to compare what a mount shows with what should be there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

/// A tree: paths with their bytes; a directory ends in a slash and has none.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// Reads a tree. What the servers of the tests keep beside the objects is left out, and files that are
/// on their way into a local storage.
///
/// # Errors
/// When something in it cannot be listed or read.
pub fn read(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut left = vec![String::new()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let on_its_way = name.starts_with(".forebay-") && name.ends_with(".part");
            if name.starts_with(".sgwtmp") || on_its_way {
                continue;
            }
            let path = format!("{dir}{name}");
            match entry.file_type()?.is_dir() {
                true => {
                    tree.insert(format!("{path}/"), Vec::new());
                    left.push(format!("{path}/"));
                }
                false => {
                    tree.insert(path, fs::read(entry.path())?);
                }
            }
        }
    }
    Ok(tree)
}

/// Returns the names in a directory, without what the servers of the tests keep there.
///
/// # Panics
/// When it cannot be listed.
#[track_caller]
pub fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let name = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        entry.file_name().to_string_lossy().into_owned()
    };
    let names = entries.map(name);
    names.filter(|name| !name.starts_with(".sgwtmp")).collect()
}

/// Says how one tree differs from another, in a line each: bytes are too many to print.
pub fn differences(found: &Tree, expected: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, bytes) in expected {
        match found.get(path) {
            None => lines.push(format!("'{path}' ({} bytes) is missing", bytes.len())),
            Some(other) if other != bytes => {
                let at = bytes.iter().zip(other).position(|(a, b)| a != b);
                lines.push(format!(
                    "'{path}' has {} bytes instead of {}, first wrong at {at:?}",
                    other.len(),
                    bytes.len()
                ));
            }
            Some(_) => {}
        }
    }
    let surplus = found.keys().filter(|path| !expected.contains_key(*path));
    lines.extend(surplus.map(|path| format!("'{path}' should not be there")));
    lines
}
