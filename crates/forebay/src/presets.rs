// SPDX-License-Identifier: Apache-2.0
//! Presets of `forebay mount`: flags that belong together, for three kinds of work.
//!
//! A preset fills in what the user left open, before a plan is made; what the user said stays. It
//! is nothing but flags, and `docs/PRESETS.md` says which and why. It is not called a profile:
//! `--profile` is that of the credentials file. A configuration file has none, because whoever
//! writes one down sees every key.

use clap::ValueEnum;
use types::Freshness;
use vfs::WriteMode;

use crate::cli::{NodeArgs, StorageArgs};

/// A kind of work that a mount is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// A published data set, read again and again: read-only, and immutable
    Training,
    /// Models that are loaded from a tree of many: read-only, and nothing fetched but what is read
    Serving,
    /// A place for checkpoints: close returns when the local disk has the file
    Checkpoints,
}

impl Preset {
    /// Fills in what was not given.
    pub(crate) fn fill(self, storage: &mut StorageArgs, node: &mut NodeArgs) {
        let is_to_write = storage.write_mode.is_some()
            || !storage.write_mode_for.is_empty()
            || storage.clean_uploads;
        match self {
            Preset::Training => {
                storage.read_only |= !is_to_write;
                storage.freshness.get_or_insert(Freshness::Immutable);
            }
            Preset::Serving => {
                storage.read_only |= !is_to_write;
                node.no_neighbours = true;
            }
            Preset::Checkpoints if !storage.read_only => {
                storage.write_mode.get_or_insert(WriteMode::Back);
            }
            Preset::Checkpoints => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn filled(preset: Preset, given: StorageArgs) -> (StorageArgs, NodeArgs) {
        let (mut storage, mut node) = (given, NodeArgs::default());
        preset.fill(&mut storage, &mut node);
        (storage, node)
    }

    #[test]
    fn a_preset_fills_in_what_was_left_open() {
        let (storage, node) = filled(Preset::Training, StorageArgs::default());
        assert!(storage.read_only && !node.no_neighbours);
        assert_eq!(storage.freshness, Some(Freshness::Immutable));
        let (storage, node) = filled(Preset::Serving, StorageArgs::default());
        assert!(storage.read_only && node.no_neighbours);
        assert_eq!(storage.freshness, None);
        let (storage, node) = filled(Preset::Checkpoints, StorageArgs::default());
        assert!(!storage.read_only && !node.no_neighbours);
        assert_eq!(storage.write_mode, Some(WriteMode::Back));
    }

    #[test]
    fn what_the_user_said_stays() {
        let minute = Freshness::MaxAge(Duration::from_secs(60));
        let given = StorageArgs {
            freshness: Some(minute),
            write_mode: Some(WriteMode::Through),
            ..StorageArgs::default()
        };
        let (storage, _) = filled(Preset::Training, given.clone());
        assert!(!storage.read_only, "it was told how to write");
        assert_eq!(storage.freshness, Some(minute));
        let (storage, _) = filled(Preset::Checkpoints, given);
        assert_eq!(storage.write_mode, Some(WriteMode::Through));
        let read_only = StorageArgs {
            read_only: true,
            ..StorageArgs::default()
        };
        let (storage, _) = filled(Preset::Checkpoints, read_only);
        assert_eq!(storage.write_mode, None);
    }
}
