// SPDX-License-Identifier: Apache-2.0
//! Names of objects as a file system can show them, and why some cannot be shown.
//!
//! Object keys are hostile: they may hold `..`, `//`, NUL, or be too long. A [`Name`] is one
//! component that is safe to hand to a kernel; an [`ObjectPath`] is a chain of them below a mount.
//! Both are bytes, because local file names need not be UTF-8.

use std::fmt;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

/// The longest component the kernel's FUSE client takes.
pub const NAME_MAX: usize = 1024;

/// Why a component of an object key cannot be shown as a file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Two slashes in a row, or one at the start.
    #[error("it has an empty component")]
    Empty,
    /// `.` or `..`, which mean something else to a kernel.
    #[error("it has a component '.' or '..'")]
    Dot,
    /// A slash inside a component, or a NUL byte.
    #[error("it has a NUL byte or a misplaced slash")]
    Forbidden,
    /// More than [`NAME_MAX`] bytes.
    #[error("it has a component of more than 1024 bytes")]
    TooLong,
}

/// One component of a path: not empty, not `.` or `..`, no slash, no NUL, at most [`NAME_MAX`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks one component.
    pub fn new(bytes: &[u8]) -> std::result::Result<Self, NameFault> {
        match bytes {
            b"" => Err(NameFault::Empty),
            b"." | b".." => Err(NameFault::Dot),
            _ if bytes.iter().any(|&b| b == 0 || b == b'/') => Err(NameFault::Forbidden),
            _ if bytes.len() > NAME_MAX => Err(NameFault::TooLong),
            _ => Ok(Name(bytes.into())),
        }
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A path below a mount: [`Name`]s joined by single slashes, without a slash at either end.
/// The empty path is the mount's root. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectPath(Arc<[u8]>);

impl ObjectPath {
    /// Returns the mount's root.
    pub fn root() -> Self {
        ObjectPath(Arc::new([]))
    }

    /// Checks a whole path, each component as [`Name::new`] does.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(ObjectPath::root());
        }
        for component in bytes.split(|&b| b == b'/') {
            Name::new(component).map_err(|fault| {
                Error::new(
                    ErrorKind::Invalid,
                    format!("path '{}'", bytes.escape_ascii()),
                )
                .with_source(fault)
            })?;
        }
        Ok(ObjectPath(bytes.into()))
    }

    /// Returns the path of a child.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        if self.is_root() {
            return ObjectPath(name.as_bytes().into());
        }
        ObjectPath([self.as_bytes(), b"/", name.as_bytes()].concat().into())
    }

    /// Returns the parent and the last component; `None` for the root.
    pub fn split(&self) -> Option<(ObjectPath, Name)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = match self.0.iter().rposition(|&b| b == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&self.0[..0], &self.0[..]),
        };
        Some((ObjectPath(parent.into()), Name(name.into())))
    }

    /// Returns whether this lies in `dir`, at any depth; no path lies in itself.
    pub fn is_below(&self, dir: &ObjectPath) -> bool {
        match self.0.strip_prefix(dir.as_bytes()) {
            Some(rest) => rest.first() == Some(&b'/') || (dir.is_root() && !rest.is_empty()),
            None => false,
        }
    }

    /// Returns where this lies after `from` was renamed to `to`; `None` when it lies elsewhere.
    #[must_use]
    pub fn moved(&self, from: &ObjectPath, to: &ObjectPath) -> Option<ObjectPath> {
        if self == from {
            return Some(to.clone());
        }
        if from.is_root() || to.is_root() || !self.is_below(from) {
            return None;
        }
        let rest = &self.0[from.0.len()..];
        Some(ObjectPath([to.as_bytes(), rest].concat().into()))
    }

    /// Returns whether this is the mount's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the path as text, for storages whose keys are UTF-8.
    pub fn as_str(&self) -> Result<&str> {
        std::str::from_utf8(&self.0).map_err(|_| {
            Error::new(
                ErrorKind::NotFound,
                format!("'{self}' is not UTF-8, as all keys here are"),
            )
        })
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.chars().any(char::is_control) => f.write_str(text),
            _ => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

impl fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_components_are_refused_and_odd_ones_kept() {
        assert_eq!(Name::new(b""), Err(NameFault::Empty));
        assert_eq!(Name::new(b".."), Err(NameFault::Dot));
        assert_eq!(Name::new(b"a/b"), Err(NameFault::Forbidden));
        assert_eq!(Name::new(b"a\0"), Err(NameFault::Forbidden));
        assert_eq!(Name::new(&[b'x'; 1025]), Err(NameFault::TooLong));
        for odd in [&b" "[..], b"...", b"a\n", b"\xff", b"%2F", &[b'x'; 1024]] {
            assert_eq!(Name::new(odd).unwrap().as_bytes(), odd);
        }
    }

    #[test]
    fn a_renamed_directory_takes_along_what_is_below_and_nothing_else() {
        let path = |text: &str| ObjectPath::parse(text.as_bytes()).unwrap();
        let moved = |text| path(text).moved(&path("a/b"), &path("c"));
        assert_eq!(moved("a/b"), Some(path("c")));
        assert_eq!(moved("a/b/x/y"), Some(path("c/x/y")));
        for other in ["a", "a/bx", "c", "b"] {
            assert_eq!(moved(other), None, "{other}");
        }
    }

    #[test]
    fn paths_join_and_split() {
        let path = ObjectPath::root().join(&Name::new(b"a").unwrap());
        let path = path.join(&Name::new(b"b c").unwrap());
        assert_eq!(path, ObjectPath::parse(b"a/b c").unwrap());
        let (parent, name) = path.split().unwrap();
        assert_eq!(
            (parent.as_bytes(), name.as_bytes()),
            (&b"a"[..], &b"b c"[..])
        );
        assert_eq!(parent.split().unwrap().0, ObjectPath::root());
        assert_eq!(ObjectPath::root().split(), None);
        assert!(ObjectPath::parse(b"a//b").is_err());
        assert!(ObjectPath::parse(b"../b").is_err());
    }
}
