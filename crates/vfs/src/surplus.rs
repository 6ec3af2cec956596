// SPDX-License-Identifier: Apache-2.0
//! How many inodes a kernel may know.
//!
//! A kernel keeps what it was once told of for as long as it has memory, and this process has to keep
//! as much: at about 480 bytes an inode, ten million files would be 5 GB. So beyond a bound the names
//! that were not asked for lately are taken back. What is known of them stays on the disk, and a
//! look-up of one costs no request.

use std::collections::HashMap;

use types::ObjectPath;

use crate::mounts::{MountIndex, Place};
use crate::remount::Outdated;
use crate::vfs::Vfs;

/// Names taken back at a time: the kernel needs some tenths of a second for them.
const BATCH: usize = 65_536;

impl Vfs {
    /// Returns names that a kernel should forget, because it knows more inodes than the settings
    /// allow; none when it does not. Their inodes are in use until it has said that it forgot them.
    pub fn surplus(&self) -> Vec<Outdated> {
        let over = self
            .namespace
            .len()
            .saturating_sub(self.settings.inodes_max as usize);
        if over == 0 {
            return Vec::new();
        }
        let table = self.mount_table();
        let mut dirs = HashMap::new();
        let number = |&(mount, ref path): &(MountIndex, ObjectPath)| {
            let (mount, path) = (Some(mount), path.clone());
            self.number_of(&table, &Place { mount, path })
        };
        let names = self.namespace.surplus(over.min(BATCH)).into_iter();
        let names = names.filter_map(|(mount, dir, name)| {
            let dir = *dirs.entry((mount, dir)).or_insert_with_key(number);
            Some(Outdated::Name {
                dir: dir?,
                name: name.as_bytes().to_vec(),
            })
        });
        names.collect()
    }
}
