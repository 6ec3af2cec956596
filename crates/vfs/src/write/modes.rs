// SPDX-License-Identifier: Apache-2.0
//! When what is written reaches the storage, by path: the longest prefix of a path decides.

use types::ObjectPath;

/// When what is written reaches the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteMode {
    /// Nothing is written.
    #[default]
    ReadOnly,
    /// Before `close` and `fsync` return.
    Through,
    /// Soon after.
    Back,
    /// Never.
    Local,
}

impl WriteMode {
    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            WriteMode::ReadOnly => "read-only",
            WriteMode::Through => "through",
            WriteMode::Back => "back",
            WriteMode::Local => "local",
        }
    }
}

/// The modes of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteModes {
    /// Where no prefix fits.
    otherwise: WriteMode,
    /// By prefix below the mount, the deepest first.
    prefixes: Vec<(ObjectPath, WriteMode)>,
}

impl From<WriteMode> for WriteModes {
    fn from(otherwise: WriteMode) -> Self {
        WriteModes {
            otherwise,
            prefixes: Vec::new(),
        }
    }
}

impl WriteModes {
    /// Makes the modes of a mount: one for all, and others below some directories.
    pub fn new(otherwise: WriteMode, prefixes: Vec<(ObjectPath, WriteMode)>) -> Self {
        let mut prefixes = prefixes;
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.as_bytes().len()));
        WriteModes {
            otherwise,
            prefixes,
        }
    }

    /// Returns the mode of a path.
    pub fn of(&self, path: &ObjectPath) -> WriteMode {
        let fits = |(prefix, _): &&(ObjectPath, WriteMode)| path == prefix || path.is_below(prefix);
        let deepest = self.prefixes.iter().find(fits);
        deepest.map_or(self.otherwise, |(_, mode)| *mode)
    }

    /// Returns the mode of a directory and of all below it, if it is one.
    pub(crate) fn of_tree(&self, dir: &ObjectPath) -> Option<WriteMode> {
        let mode = self.of(dir);
        let mut below = self
            .prefixes
            .iter()
            .filter(|(prefix, _)| prefix.is_below(dir));
        below.all(|(_, inner)| *inner == mode).then_some(mode)
    }

    /// Returns whether nothing is written anywhere.
    pub fn is_read_only(&self) -> bool {
        let mut all = self.prefixes.iter().map(|(_, mode)| *mode);
        self.otherwise == WriteMode::ReadOnly && all.all(|mode| mode == WriteMode::ReadOnly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_longest_prefix_decides_and_names_that_only_begin_alike_do_not_count() {
        let modes = WriteModes::new(
            WriteMode::Through,
            vec![
                (path("a"), WriteMode::Back),
                (path("a/b/c"), WriteMode::Local),
                (path("a/b"), WriteMode::ReadOnly),
            ],
        );
        for (at, mode) in [
            ("", WriteMode::Through),
            ("ab", WriteMode::Through),
            ("a", WriteMode::Back),
            ("a/x", WriteMode::Back),
            ("a/b", WriteMode::ReadOnly),
            ("a/bc", WriteMode::Back),
            ("a/b/c/d", WriteMode::Local),
        ] {
            assert_eq!(modes.of(&path(at)), mode, "{at}");
        }
        assert_eq!(modes.of_tree(&path("a/b/c")), Some(WriteMode::Local));
        assert_eq!(modes.of_tree(&path("a/b")), None);
        assert_eq!(modes.of_tree(&path("x")), Some(WriteMode::Through));
        assert!(!modes.is_read_only() && WriteModes::default().is_read_only());
    }
}
