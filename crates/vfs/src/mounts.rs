// SPDX-License-Identifier: Apache-2.0
//! The mount table: what hangs where in the tree, read-only once built.
//!
//! Mount points and the directories that lead to them form a small tree of [`Point`]s. A walk from
//! the root that enters points before it asks a storage finds the longest matching mount by itself,
//! and a mount point hides whatever the storage around it has under the same name. A directory that
//! only leads to mount points exists whether or not a storage has it; inside a mount it also shows
//! what the storage has there.

use types::{Error, ErrorKind, Freshness, MountId, Name, NodeKind, ObjectPath, Result, VersionTag};

use crate::attributes::AttributeDefaults;
use crate::ino::{Ino, InoHasher};

/// One storage and where it hangs in the tree.
#[derive(Debug, Clone)]
pub struct MountSpec {
    /// Place in the tree; the root is allowed.
    pub at: ObjectPath,
    /// The storage, as the worker knows it.
    pub id: MountId,
    /// What people call the storage, without secrets.
    pub uri: String,
    /// How long what is known of its names stays true.
    pub freshness: Freshness,
    /// Owner and modes of what has none in the storage.
    pub attributes: AttributeDefaults,
}

/// Index of a mount in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MountIndex(usize);

/// Index of a [`Point`] in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PointIndex(usize);

/// Where something is: what names a node, apart from its kind and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The mount it belongs to; none above all mounts.
    pub(crate) mount: Option<MountIndex>,
    /// The path below the mount, or in the tree where there is no mount.
    pub(crate) path: ObjectPath,
    /// The point, when this is a mount point or leads to one.
    pub(crate) point: Option<PointIndex>,
}

/// A mount point, or a directory on the way to one.
#[derive(Debug)]
struct Point {
    place: Place,
    parent: PointIndex,
    /// Sorted by name.
    children: Vec<(Name, PointIndex)>,
}

#[derive(Debug)]
struct Mount {
    spec: MountSpec,
    point: PointIndex,
    hasher: InoHasher,
}

/// All mounts of a tree.
#[derive(Debug)]
pub(crate) struct MountTable {
    mounts: Vec<Mount>,
    points: Vec<Point>,
}

const ROOT: PointIndex = PointIndex(0);

impl MountTable {
    /// Builds the table. Refuses an empty one and two mounts at one place.
    pub(crate) fn new(mut specs: Vec<MountSpec>) -> Result<Self> {
        if specs.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "there is nothing to mount"));
        }
        // Outer mounts first, so that a point inside one finds it already in place.
        specs.sort_by(|a, b| a.at.cmp(&b.at));
        if let Some([first, _]) = specs.array_windows().find(|[a, b]| a.at == b.at) {
            let message = format!("two storages are mounted at '/{}': remove one", first.at);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let root = Place {
            mount: None,
            path: ObjectPath::root(),
            point: Some(ROOT),
        };
        let mut table = MountTable {
            mounts: Vec::with_capacity(specs.len()),
            points: vec![Point {
                place: root,
                parent: ROOT,
                children: Vec::new(),
            }],
        };
        for spec in specs {
            table.add(spec)?;
        }
        Ok(table)
    }

    fn add(&mut self, spec: MountSpec) -> Result<()> {
        let mut point = ROOT;
        for component in spec
            .at
            .as_bytes()
            .split(|&b| b == b'/')
            .filter(|part| !part.is_empty())
        {
            let name = Name::new(component).map_err(|fault| {
                Error::new(ErrorKind::Invalid, format!("mount point '/{}'", spec.at))
                    .with_source(fault)
            })?;
            point = self.child_or_new(point, name);
        }
        self.points[point.0].place = Place {
            mount: Some(MountIndex(self.mounts.len())),
            path: ObjectPath::root(),
            point: Some(point),
        };
        let hasher = InoHasher::of_mount(&spec.at, spec.id);
        self.mounts.push(Mount {
            spec,
            point,
            hasher,
        });
        Ok(())
    }

    fn child_or_new(&mut self, parent: PointIndex, name: Name) -> PointIndex {
        let children = &self.points[parent.0].children;
        match children.binary_search_by(|(other, _)| other.cmp(&name)) {
            Ok(at) => children[at].1,
            Err(at) => {
                let point = PointIndex(self.points.len());
                let around = &self.points[parent.0].place;
                let place = Place {
                    mount: around.mount,
                    path: around.path.join(&name),
                    point: Some(point),
                };
                self.points.push(Point {
                    place,
                    parent,
                    children: Vec::new(),
                });
                self.points[parent.0].children.insert(at, (name, point));
                point
            }
        }
    }

    /// Returns the root of the tree.
    pub(crate) fn root(&self) -> &Place {
        &self.points[ROOT.0].place
    }

    /// Returns the mount point, or the directory that leads to one, called `name` in `dir`.
    pub(crate) fn enter(&self, dir: &Place, name: &[u8]) -> Option<&Place> {
        let children = self.children(dir);
        let at = children
            .binary_search_by(|(other, _)| other.as_bytes().cmp(name))
            .ok()?;
        Some(self.place(children[at].1))
    }

    /// Returns the points directly in `dir`, sorted by name.
    pub(crate) fn children(&self, dir: &Place) -> &[(Name, PointIndex)] {
        dir.point
            .map_or(&[], |point| &self.points[point.0].children)
    }

    /// Returns where a point is.
    pub(crate) fn place(&self, point: PointIndex) -> &Place {
        &self.points[point.0].place
    }

    /// Returns whether `dir` exists only because it leads to a mount point, as far as is known
    /// here: the storage around it may or may not have it.
    pub(crate) fn is_implied(&self, dir: &Place) -> bool {
        dir.point.is_some() && (dir.mount.is_none() || !dir.path.is_root())
    }

    /// Returns the description of a mount.
    pub(crate) fn spec(&self, mount: MountIndex) -> &MountSpec {
        &self.mounts[mount.0].spec
    }

    /// Returns owner and modes of what has none; above all mounts, those of the first one.
    pub(crate) fn defaults(&self, mount: Option<MountIndex>) -> &AttributeDefaults {
        &self.spec(mount.unwrap_or(MountIndex(0))).attributes
    }

    /// Returns the state from which the inode numbers in `dir` are hashed.
    pub(crate) fn hasher(&self, dir: &Place) -> InoHasher {
        let start = match dir.mount {
            Some(mount) => self.mounts[mount.0].hasher,
            None => InoHasher::of_mount_table(),
        };
        start.path(&dir.path)
    }

    /// Returns the inode number of a directory.
    pub(crate) fn directory_ino(&self, dir: &Place) -> Ino {
        if dir.point == Some(ROOT) {
            return Ino::ROOT;
        }
        self.hasher(dir)
            .finish(NodeKind::Directory, &VersionTag::default())
    }

    /// Returns the inode number of the directory above `dir`, the root's own for the root.
    pub(crate) fn parent_ino(&self, dir: &Place) -> Ino {
        if let Some(point) = dir.point {
            return self.directory_ino(self.place(self.points[point.0].parent));
        }
        match (dir.mount, dir.path.split()) {
            (Some(mount), Some((path, _))) if path.is_root() => {
                self.directory_ino(self.place(self.mounts[mount.0].point))
            }
            (mount, Some((path, _))) => self.directory_ino(&Place {
                mount,
                path,
                point: None,
            }),
            (_, None) => Ino::ROOT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    fn spec(at: &str, id: u64) -> MountSpec {
        MountSpec {
            at: path(at),
            id: MountId(id),
            uri: format!("mem://{id}"),
            freshness: Freshness::Immutable,
            attributes: AttributeDefaults::default(),
        }
    }

    fn walk<'a>(table: &'a MountTable, names: &[&str]) -> Option<&'a Place> {
        names.iter().try_fold(table.root(), |place, name| {
            table.enter(place, name.as_bytes())
        })
    }

    fn mounted(table: &MountTable, names: &[&str]) -> Option<u64> {
        let mount = walk(table, names)?.mount?;
        Some(table.spec(mount).id.0)
    }

    #[test]
    fn the_innermost_mount_wins_whatever_the_order() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let all = [("", 1), ("a/b", 2), ("a/b/c/d", 3)];
            let table = MountTable::new(order.map(|i| spec(all[i].0, all[i].1)).into()).unwrap();
            assert_eq!(mounted(&table, &[]), Some(1));
            assert_eq!(mounted(&table, &["a"]), Some(1));
            assert_eq!(walk(&table, &["a"]).unwrap().path, path("a"));
            assert_eq!(mounted(&table, &["a", "b"]), Some(2));
            assert_eq!(walk(&table, &["a", "b", "c"]).unwrap().path, path("c"));
            assert_eq!(mounted(&table, &["a", "b", "c", "d"]), Some(3));
            assert_eq!(walk(&table, &["a", "x"]), None);
        }
    }

    #[test]
    fn directories_above_all_mounts_have_none() {
        let table = MountTable::new(vec![spec("x/y", 1), spec("x/z", 2)]).unwrap();
        assert_eq!(mounted(&table, &["x"]), None);
        let x = walk(&table, &["x"]).unwrap();
        assert!(table.is_implied(x) && table.is_implied(table.root()));
        let names: Vec<_> = table
            .children(x)
            .iter()
            .map(|(name, _)| name.to_string())
            .collect();
        assert_eq!(names, ["y", "z"]);
        let y = table.enter(x, b"y").unwrap();
        assert!(!table.is_implied(y));
        assert_eq!(table.parent_ino(y), table.directory_ino(x));
        assert_eq!(table.parent_ino(x), Ino::ROOT);
    }

    #[test]
    fn the_directory_above_is_found_across_mount_points() {
        let table = MountTable::new(vec![spec("", 1), spec("a/b", 2)]).unwrap();
        let deep = |mount, text| Place {
            mount: Some(MountIndex(mount)),
            path: path(text),
            point: None,
        };
        assert_eq!(table.parent_ino(&deep(0, "d")), Ino::ROOT);
        assert_eq!(
            table.parent_ino(&deep(1, "d")),
            table.directory_ino(walk(&table, &["a", "b"]).unwrap())
        );
        assert_eq!(
            table.parent_ino(&deep(0, "a/x")),
            table.directory_ino(walk(&table, &["a"]).unwrap())
        );
        assert_eq!(table.parent_ino(table.root()), Ino::ROOT);
    }

    #[test]
    fn two_mounts_at_one_place_and_none_at_all_are_refused() {
        let error = MountTable::new(vec![spec("a", 1), spec("b", 3), spec("a", 2)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("'/a'"), "{error}");
        assert_eq!(
            MountTable::new(Vec::new()).unwrap_err().kind(),
            ErrorKind::Invalid
        );
    }
}
