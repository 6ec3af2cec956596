// SPDX-License-Identifier: Apache-2.0
//! Changing what hangs where while the tree is in use.
//!
//! A change makes a new mount table, puts it in place of the old one, and returns what a door may
//! have told a kernel and is not true any more. The door takes those promises back; until then a
//! look-up gives old answers, never wrong bytes: an inode keeps its mount, version and handles,
//! whatever the table says. What must not happen is left to nobody's care: a mount that was removed
//! answers nothing but what is cached for files that are open.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use types::{Error, ErrorKind, Name, NodeKind, ObjectPath, Result};

use crate::ino::Ino;
use crate::mounts::{MountIndex, MountSpec, MountTable, Place, components};
use crate::vfs::Vfs;

/// Something that a kernel may still believe and must ask for again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outdated {
    /// What a name in a directory stands for, also that it stands for nothing.
    Name {
        /// The directory.
        dir: Ino,
        /// The name.
        name: Vec<u8>,
    },
    /// The attributes of an inode.
    Attributes(Ino),
}

impl Vfs {
    /// Returns the mounts of now, in the order in which they came.
    pub fn mounts(&self) -> Vec<MountSpec> {
        self.mount_table().live().cloned().collect()
    }

    /// Asks the storages around a place whether something could be mounted there. A storage that
    /// does not answer is no reason against it.
    ///
    /// # Errors
    /// `AlreadyExists` when something is mounted there, `NotADirectory` when it or what leads to it
    /// is no directory, with what it is.
    pub fn check_place(self: &Arc<Self>, at: &ObjectPath) -> BoxFuture<'static, Result<()>> {
        let (vfs, at) = (Arc::clone(self), at.clone());
        async move { vfs.place_is_free(&at).await }.boxed()
    }

    async fn place_is_free(self: Arc<Self>, at: &ObjectPath) -> Result<()> {
        let table = self.mount_table();
        if let Some(found) = table.at(at) {
            let uri = &table.spec(found).uri;
            let message = format!("'{uri}' is mounted at '/{at}' already");
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        let mut place = table.root().clone();
        for name in components(at)? {
            if let Some(next) = table.enter(&place, name.as_bytes()) {
                place = next.clone();
                continue;
            }
            place.path = place.path.join(&name);
            let Some(mount) = place.mount else {
                return Ok(());
            };
            let spec = table.spec(mount);
            let asked =
                self.worker
                    .stat(spec.id, place.path.clone(), spec.freshness, self.deadline());
            let what = match asked.await.map(|learnt| learnt.value.kind) {
                Ok(NodeKind::Directory) => continue,
                Ok(NodeKind::File) => "a file",
                Ok(NodeKind::Symlink) => "a symbolic link",
                Err(_) => return Ok(()),
            };
            let (path, uri) = (&place.path, &spec.uri);
            let message = format!("mount at '/{at}': '{path}' is {what} in '{uri}'");
            return Err(Error::new(ErrorKind::NotADirectory, message));
        }
        Ok(())
    }

    /// Hangs one more storage into the tree.
    ///
    /// # Errors
    /// `AlreadyExists` when something is mounted there.
    pub fn add_mount(&self, spec: MountSpec) -> Result<Vec<Outdated>> {
        let at = spec.at.clone();
        let (old, new) = self.change(|table| table.with(spec))?;
        if at.is_root() {
            return Ok(self.all_in_root(&old, &new));
        }
        Ok(self.newly_covered(&old, &new, &at))
    }

    /// Describes a mount in another way: its storage with other credentials, other freshness, other
    /// attributes. Open files go on with what they were opened with.
    ///
    /// # Errors
    /// `NotFound` when nothing is mounted there.
    pub fn update_mount(&self, spec: MountSpec) -> Result<Vec<Outdated>> {
        let at = spec.at.clone();
        let (old, new) = self.change(|table| table.changed(mount_at(table, &spec.at)?, spec))?;
        let mount = mount_at(&new, &at)?;
        if old.spec(mount).writes != new.spec(mount).writes {
            self.queue_what_waits(mount);
        }
        // Everything, and not only what is at the top: a kernel keeps what is below a directory that
        // it finds again if a program is in there or has a file open. Numbers came from the old table.
        let mut outdated = self.names_of(&old, mount, |_, _| true);
        outdated.extend(self.take_absent(&old, mount, &ObjectPath::root()));
        let root = Place {
            mount: Some(mount),
            path: ObjectPath::root(),
        };
        outdated.extend(self.number_of(&old, &root).map(Outdated::Attributes));
        if old.spec(mount).id != new.spec(mount).id {
            outdated.extend(self.own_name(&new, &at)?);
        }
        Ok(outdated)
    }

    /// Takes a storage out of the tree. Its open files are read on as far as they are cached.
    ///
    /// # Errors
    /// `NotFound` when nothing is mounted there, `NotEmpty` when something is mounted below,
    /// `Busy` for the root when it is the only mount.
    pub fn remove_mount(&self, at: &ObjectPath) -> Result<Vec<Outdated>> {
        let (old, new) = self.change(|table| {
            let mount = mount_at(table, at)?;
            if at.is_root() && table.live().count() == 1 {
                let message = "the root is the only mount: unmount the tree instead";
                return Err(Error::new(ErrorKind::Busy, message));
            }
            table.without(mount)
        })?;
        if at.is_root() {
            return Ok(self.all_in_root(&old, &new));
        }
        // Their directory goes, and they with it.
        if let Some(mount) = old.at(at) {
            self.promises.take_absent(mount, &ObjectPath::root());
        }
        let mut outdated = self.own_name(&old, at)?;
        // So may be the directories that led to it only.
        let mut place = new.root().clone();
        for name in components(at)? {
            match new.enter(&place, name.as_bytes()) {
                Some(next) => place = next.clone(),
                None => {
                    outdated.extend(self.name(&new, &place, name.as_bytes()));
                    break;
                }
            }
        }
        outdated.dedup();
        Ok(outdated)
    }

    fn change(
        &self,
        make: impl FnOnce(&MountTable) -> Result<MountTable>,
    ) -> Result<(Arc<MountTable>, Arc<MountTable>)> {
        let mut current = self.mounts.write();
        let new = Arc::new(make(&current)?);
        if new.root() != current.root() {
            self.namespace.set_root(new.root().clone());
        }
        let old = std::mem::replace(&mut *current, Arc::clone(&new));
        self.promises.begin_age();
        Ok((old, new))
    }

    /// Returns the first name on the way to a new mount point that means something else now, and the
    /// mount point's own. A directory that stays what it was is left alone: programs may be in it.
    fn newly_covered(&self, old: &MountTable, new: &MountTable, at: &ObjectPath) -> Vec<Outdated> {
        let mut dir = new.root().clone();
        for name in components(at).unwrap_or_default() {
            let Some(place) = new.enter(&dir, name.as_bytes()) else {
                break;
            };
            let was_so = old.enter(&dir, name.as_bytes()) == Some(place);
            if !was_so && self.number_of(new, place).is_none() || is_root_of_mount(place, new, at) {
                return self.name(new, &dir, name.as_bytes()).into_iter().collect();
            }
            dir = place.clone();
        }
        Vec::new()
    }

    /// Returns everything directly in the root: what hangs there has changed.
    fn all_in_root(&self, old: &MountTable, new: &MountTable) -> Vec<Outdated> {
        let mut outdated = vec![Outdated::Attributes(Ino::ROOT)];
        for table in [old, new] {
            if let Some(mount) = table.root().mount {
                let absent = self.promises.take_absent(mount, &ObjectPath::root());
                let names = absent.iter().filter_map(ObjectPath::split);
                let names = names.chain(self.namespace.names_of(mount));
                let in_root = names.filter(|(dir, _)| dir.is_root());
                outdated.extend(in_root.map(|(_, name)| Outdated::Name {
                    dir: Ino::ROOT,
                    name: name.as_bytes().to_vec(),
                }));
            }
        }
        for table in [old, new] {
            for (name, _) in table.children(table.root()) {
                let name = Outdated::Name {
                    dir: Ino::ROOT,
                    name: name.as_bytes().to_vec(),
                };
                if !outdated.contains(&name) {
                    outdated.push(name);
                }
            }
        }
        outdated
    }

    /// Returns the name of a mount point in the directory around it; the root has none.
    fn own_name(&self, table: &MountTable, at: &ObjectPath) -> Result<Vec<Outdated>> {
        let mut names = components(at)?;
        let Some(last) = names.pop() else {
            return Ok(Vec::new());
        };
        let mut dir = table.root();
        for name in &names {
            match table.enter(dir, name.as_bytes()) {
                Some(next) => dir = next,
                None => return Ok(Vec::new()),
            }
        }
        Ok(self.name(table, dir, last.as_bytes()).into_iter().collect())
    }

    /// Returns a name as outdated, unless nobody knows its directory.
    pub(crate) fn name(&self, table: &MountTable, dir: &Place, name: &[u8]) -> Option<Outdated> {
        Some(Outdated::Name {
            dir: self.number_of(table, dir)?,
            name: name.to_vec(),
        })
    }

    /// Returns the names below a directory of a mount that somebody knows to be absent, and promises
    /// nothing of them any more.
    pub(crate) fn take_absent(
        &self,
        table: &MountTable,
        mount: MountIndex,
        dir: &ObjectPath,
    ) -> Vec<Outdated> {
        let absent = self.promises.take_absent(mount, dir);
        let parts = absent.iter().filter_map(ObjectPath::split);
        let names = parts.filter_map(|(path, name)| {
            let mount = Some(mount);
            self.name(table, &Place { mount, path }, name.as_bytes())
        });
        names.collect()
    }

    /// Returns the names of a mount that anybody knows and that are wanted.
    pub(crate) fn names_of(
        &self,
        table: &MountTable,
        mount: MountIndex,
        is_wanted: impl Fn(&ObjectPath, &Name) -> bool,
    ) -> Vec<Outdated> {
        let mut numbers = HashMap::new();
        let names = self.namespace.names_of(mount).into_iter();
        let names = names.filter(|(path, name)| is_wanted(path, name));
        let names = names.filter_map(|(path, name)| {
            let number = |path: &ObjectPath| {
                let mount = Some(mount);
                self.number_of(
                    table,
                    &Place {
                        mount,
                        path: path.clone(),
                    },
                )
            };
            let dir = *numbers.entry(path).or_insert_with_key(number);
            Some(Outdated::Name {
                dir: dir?,
                name: name.as_bytes().to_vec(),
            })
        });
        names.collect()
    }

    pub(crate) fn number_of(&self, table: &MountTable, dir: &Place) -> Option<Ino> {
        if let Some(bound) = self.bindings.get(dir) {
            return Some(bound.ino);
        }
        self.namespace
            .known_directory(table.directory_ino(dir), dir)
    }
}

fn mount_at(table: &MountTable, at: &ObjectPath) -> Result<MountIndex> {
    table.at(at).ok_or_else(|| {
        let mounts: Vec<_> = table.live().map(|spec| format!("'/{}'", spec.at)).collect();
        let advice = match mounts.is_empty() {
            true => "nothing is mounted anywhere".to_owned(),
            false => format!("the mounts are at {}", mounts.join(", ")),
        };
        let message = format!("nothing is mounted at '/{at}'; {advice}");
        Error::new(ErrorKind::NotFound, message)
    })
}

fn is_root_of_mount(place: &Place, table: &MountTable, at: &ObjectPath) -> bool {
    place.path.is_root() && place.mount.is_some() && place.mount == table.at(at)
}
