// SPDX-License-Identifier: Apache-2.0
//! Random changes of a staged file against a plain vector of bytes. `FOREBAY_SEED` replays a run.

use std::sync::Arc;

use cache::staged::{Recovered, Source, StagedFile, Staging};
use types::{ByteRange, in_memory};

use crate::staged_support::*;
use crate::support::*;

const LEN_MAX: u64 = 300_000;

struct Model {
    dir: tempfile::TempDir,
    staging: Option<Arc<Staging>>,
    file: Option<Arc<StagedFile>>,
    bytes: Vec<u8>,
    /// Where the older version shows through.
    base: Vec<bool>,
    random: u64,
}

impl Model {
    fn new(seed: u64) -> Model {
        let dir = temp();
        let base = mix(seed) % LEN_MAX * (seed % 2);
        let staging = stage(dir.path()).0;
        Model {
            file: Some(staging.create(base).unwrap()),
            staging: Some(staging),
            dir,
            bytes: old(whole(base)),
            base: vec![true; in_memory(base)],
            random: seed,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random = mix(self.random);
        (self.random >> 16) % n
    }

    fn range(&mut self) -> ByteRange {
        let offset = self.below(LEN_MAX);
        let most = match self.below(3) {
            0 => 100,
            1 => 5000,
            _ => 100_000,
        };
        ByteRange::new(offset, 1 + self.below(most))
    }

    fn grow(&mut self, len: u64) {
        let len = in_memory(len).max(self.bytes.len());
        self.bytes.resize(len, 0);
        self.base.resize(len, false);
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        self.grow(offset + bytes.len() as u64);
        let range = in_memory(offset)..in_memory(offset) + bytes.len();
        self.bytes[range.clone()].copy_from_slice(bytes);
        self.base[range].fill(false);
    }

    fn step(&mut self) {
        let file = Arc::clone(self.file.as_ref().unwrap());
        let range = self.range();
        let fresh = content(self.random, whole(range.len));
        match self.below(100) {
            0..35 => {
                file.write_at(range.offset, &fresh).unwrap();
                self.put(range.offset, &fresh);
            }
            35..50 if self.bytes.len() < 1 << 20 => {
                let at = file.append(&fresh).unwrap();
                assert_eq!(at, self.bytes.len() as u64);
                self.put(at, &fresh);
            }
            50..60 => {
                let len = self.below(LEN_MAX);
                file.truncate(len).unwrap();
                self.bytes.resize(in_memory(len), 0);
                self.base.resize(in_memory(len), false);
            }
            60..75 => self.allocate(&file, range),
            75..85 => {
                file.fill_base(range.offset, &old(range)).unwrap();
                let end = in_memory(range.end()).min(self.base.len());
                let start = in_memory(range.offset).min(end);
                self.base[start..end].fill(false);
            }
            85..90 => {
                file.sync().unwrap();
                self.staging
                    .as_ref()
                    .unwrap()
                    .note(file.id(), Some(b"model"))
                    .unwrap();
                drop(file);
                self.reopen();
            }
            _ => self.look(&file, range),
        }
    }

    fn allocate(&mut self, file: &StagedFile, range: ByteRange) {
        let mode = [0, 1, 3, 0x10, 0x11][in_memory(self.below(5))];
        file.allocate(mode, range).unwrap();
        if mode & 1 == 0 {
            self.grow(range.end());
        }
        if mode > 1 {
            let end = in_memory(range.end()).min(self.bytes.len());
            let start = in_memory(range.offset).min(end);
            self.bytes[start..end].fill(0);
            self.base[start..end].fill(false);
        }
    }

    fn reopen(&mut self) {
        self.file = None;
        self.staging = None;
        let (staging, mut recovered) = stage(self.dir.path());
        let Recovered { note, file, .. } = recovered.pop().unwrap();
        assert_eq!(note, b"model");
        self.staging = Some(staging);
        self.file = file;
    }

    fn look(&mut self, file: &StagedFile, range: ByteRange) {
        assert!(seen(file) == self.bytes);
        for segment in file.segments(range) {
            let part = &self.base[in_memory(segment.range.offset)..in_memory(segment.range.end())];
            let base = segment.source == Source::Base;
            assert!(part.iter().all(|flag| *flag == base), "{segment:?}");
        }
        let base = self.base.iter().rposition(|flag| *flag);
        assert_eq!(file.base(), base.map_or(0, |at| at as u64 + 1));
        assert_eq!(file.is_whole(), base.is_none());
        // Between data and the next hole nothing may be skipped that is not zero.
        let at = in_memory(range.offset);
        let data = file
            .seek_data(range.offset)
            .map_or(self.bytes.len(), in_memory);
        if at < data {
            assert!(self.bytes[at..data].iter().all(|byte| *byte == 0));
        }
        if let Some(hole) = file.seek_hole(range.offset) {
            assert!(hole >= range.offset && hole <= file.len());
        }
        let staging = self.staging.as_ref().unwrap();
        let on_disk = disk_usage(&self.dir.path().join("staged"));
        let notes = std::fs::metadata(notes_file(self.dir.path()))
            .unwrap()
            .len();
        assert!(
            on_disk.saturating_sub(notes + 16_384) <= staging.usage().bytes,
            "{on_disk}"
        );
    }
}

#[test]
fn random_changes_come_to_what_a_vector_of_bytes_says() {
    let seeds = match std::env::var("FOREBAY_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=8).collect(),
    };
    for seed in seeds {
        let mut model = Model::new(seed);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..150 {
                model.step();
            }
        }));
        assert!(done.is_ok(), "replay with FOREBAY_SEED={seed}");
    }
}
