// SPDX-License-Identifier: Apache-2.0
//! The steps of a run: what may happen to a mount, and how a seed chooses.
//!
//! A step names paths and slots of handles, never states, so that any part of a sequence is a
//! sequence. What a step finds may be nothing: then it must fail as on any file system.

use serde::{Deserialize, Serialize};
use testkit::data;

use crate::toy::Toy;

/// How many handles may be open at a time.
pub(crate) const SLOTS: usize = 4;

/// When what is written reaches the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    Through,
    Back,
}

impl Mode {
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Mode::Through => "through",
            Mode::Back => "back",
        }
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) create: bool,
    pub(crate) exclusive: bool,
    pub(crate) truncate: bool,
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Open {
        slot: usize,
        path: String,
        how: Open,
    },
    Write {
        slot: usize,
        offset: u64,
        seed: u64,
        len: usize,
    },
    Read {
        slot: usize,
        offset: u64,
        len: usize,
    },
    /// A part of the file is mapped, changed there, and synced.
    Map {
        slot: usize,
        offset: u64,
        seed: u64,
        len: usize,
    },
    Cut {
        slot: usize,
        len: u64,
    },
    Punch {
        slot: usize,
        offset: u64,
        len: u64,
    },
    Allocate {
        slot: usize,
        offset: u64,
        len: u64,
    },
    Sync {
        slot: usize,
    },
    Close {
        slot: usize,
    },
    CutPath {
        path: String,
        len: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    Unlink {
        path: String,
    },
    MakeDir {
        path: String,
    },
    RemoveDir {
        path: String,
    },
    List {
        path: String,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    SetTime {
        path: String,
        seconds: i64,
    },
    /// Somebody else puts an object that nobody here is writing.
    Put {
        path: String,
        seed: u64,
        len: usize,
    },
    /// Somebody else removes one.
    Remove {
        path: String,
    },
    /// Somebody else changes (or removes) the object that a handle is writing.
    Contest {
        slot: usize,
        seed: u64,
        removes: bool,
    },
    /// The storage is given time to take all that was promised, and is then looked at.
    Settle,
    /// The daemon is killed, and started again.
    Kill {
        mode: Mode,
    },
    /// The mount is taken away and made again.
    Remount {
        mode: Mode,
    },
}

/// Numbers that follow from a seed.
pub(crate) struct Chooser {
    seed: u64,
    count: u64,
}

impl Chooser {
    pub(crate) fn new(seed: u64) -> Self {
        Chooser { seed, count: 0 }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.count += 1;
        data::pick(self.seed, self.count, bound)
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    fn seed(&mut self) -> u64 {
        self.below(1 << 20) as u64
    }

    /// A position in a file: near its start, around pages of any kind, or far.
    fn offset(&mut self) -> u64 {
        let base = *self.of(&[0, 0, 0, 1, 4096, 8192, 131_072, 262_144]);
        let beside = self.below(40) as u64;
        match self.one_in(200) {
            true => (5 << 20) + beside,
            false => base + beside,
        }
    }

    fn len(&mut self) -> usize {
        match self.below(100) {
            0..=49 => 1 + self.below(100),
            50..=79 => 1 + self.below(10_000),
            80..=97 => 1 + self.below(200_000),
            _ => (4 << 20) + self.below(1 << 20),
        }
    }

    fn mode(&mut self) -> Mode {
        *self.of(&[Mode::Through, Mode::Back])
    }

    fn how(&mut self) -> Open {
        let (read, write) = *self.of(&[(true, false), (true, true), (true, true), (false, true)]);
        Open {
            read,
            write,
            append: write && self.one_in(4),
            create: write && !self.one_in(4),
            exclusive: write && self.one_in(8),
            truncate: write && self.one_in(4),
        }
    }

    /// A path that is there, or any.
    fn path(&mut self, known: &[String]) -> String {
        if !known.is_empty() && !self.one_in(3) {
            return self.of(known).clone();
        }
        let names = ["a", "b", "c", "d"];
        let depth = *self.of(&[1, 1, 2, 2, 3]);
        let parts: Vec<_> = (0..depth).map(|_| *self.of(&names)).collect();
        parts.join("/")
    }

    /// A name for a new thing, mostly in a directory that is there.
    fn new_path(&mut self, dirs: &[String]) -> String {
        match dirs.is_empty() || self.one_in(3) {
            true => self.path(&[]),
            false => format!("{}/{}", self.of(dirs), self.of(&["a", "b", "c", "d"])),
        }
    }

    /// Chooses what happens next to a tree.
    pub(crate) fn step(&mut self, toy: &Toy) -> Step {
        let (files, dirs) = toy.paths();
        let slot = self.below(SLOTS);
        match self.below(1000) {
            0..=169 => Step::Open {
                slot,
                path: match self.one_in(2) {
                    true => self.path(&files),
                    false => self.new_path(&dirs),
                },
                how: self.how(),
            },
            170..=369 => Step::Write {
                slot,
                offset: self.offset(),
                seed: self.seed(),
                len: self.len(),
            },
            370..=449 => Step::Read {
                slot,
                offset: self.offset(),
                len: self.len(),
            },
            450..=479 => Step::Map {
                slot,
                offset: self.offset(),
                seed: self.seed(),
                len: self.len(),
            },
            480..=519 => Step::Cut {
                slot,
                len: self.offset(),
            },
            520..=534 => Step::Punch {
                slot,
                offset: self.offset(),
                len: self.len() as u64,
            },
            535..=544 => Step::Allocate {
                slot,
                offset: self.offset(),
                len: self.len() as u64,
            },
            545..=579 => Step::Sync { slot },
            580..=669 => Step::Close { slot },
            670..=894 => self.names(&files, &dirs),
            895..=919 => Step::Put {
                path: match self.one_in(2) {
                    true => self.path(&files),
                    false => self.new_path(&dirs),
                },
                seed: self.seed(),
                len: self.len(),
            },
            920..=929 => Step::Remove {
                path: self.path(&files),
            },
            930..=944 => Step::Contest {
                slot,
                seed: self.seed(),
                removes: self.one_in(4),
            },
            945..=964 => Step::Settle,
            965..=984 => Step::Kill { mode: self.mode() },
            _ => Step::Remount { mode: self.mode() },
        }
    }

    /// Chooses a change of names.
    fn names(&mut self, files: &[String], dirs: &[String]) -> Step {
        match self.below(100) {
            0..=19 => Step::Rename {
                from: self.path(files),
                to: match self.one_in(2) {
                    true => self.path(files),
                    false => self.new_path(dirs),
                },
            },
            20..=34 => Step::Rename {
                from: self.path(dirs),
                to: match self.one_in(2) {
                    true => self.path(dirs),
                    false => self.new_path(dirs),
                },
            },
            35..=49 => Step::Unlink {
                path: self.path(files),
            },
            50..=69 => Step::MakeDir {
                path: self.new_path(dirs),
            },
            70..=77 => Step::RemoveDir {
                path: self.path(dirs),
            },
            78..=84 => Step::List {
                path: self.path(dirs),
            },
            85..=89 => Step::Chmod {
                path: self.path(files),
                mode: *self.of(&[0o600, 0o644, 0o755, 0o640]),
            },
            90..=94 => Step::SetTime {
                path: self.path(files),
                seconds: 1_000_000_000 + self.below(1_000_000) as i64,
            },
            _ => Step::CutPath {
                path: self.path(files),
                len: self.offset(),
            },
        }
    }
}
