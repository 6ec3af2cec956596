// SPDX-License-Identifier: Apache-2.0
//! A process that stages, notes, drops and adopts files dies at every passage of every fault point.
//!
//! It reports what was acknowledged. What a kill leaves is checked, and, in copies of the directory,
//! what a power cut may leave: of everything that was not synced any part, as it was or as zeros. Half
//! of the files are noted for kills only, the second time.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use cache::staged::{BootId, Outlives, StagedFile, StagedId};
use types::{ByteRange, crash, in_memory};

use crate::staged_support::*;
use crate::support::*;

const DIR: &str = "FOREBAY_TEST_STAGED_DIR";
const NAME: &str = "staged_crash::what_was_acknowledged_survives_a_crash_at_any_point";
const FILES: u64 = 4;
const BASE: u64 = 20_000;
/// A note that fills the file of notes with garbage, so that it is rewritten.
const LARGE: usize = 2_500_000;

fn base(n: u64) -> u64 {
    BASE * ((n + 1) % 2)
}

/// What file `n` shows at version 0 and 1; the older version where it does.
fn expected(n: u64, version: u64) -> Vec<u8> {
    let mut bytes = old(whole(base(n)));
    if base(n) > 0 {
        bytes[5000..8000].copy_from_slice(&content(n, whole(3000)));
    }
    bytes.extend(content(n + 50, whole(10_000)));
    if version > 0 {
        bytes.extend(content(n + 60, whole(7_000)));
    }
    bytes
}

fn say(what: &str, dir: &Path) {
    let notes = std::fs::metadata(notes_file(dir)).unwrap().len();
    let mut out = std::io::stdout();
    writeln!(out, "ack {what} {notes}").unwrap();
    out.flush().unwrap();
}

/// What the process does that is to die.
fn work(dir: &Path) {
    let store = open(dir);
    let (staging, _) = try_stage(dir, Some(Arc::clone(&store))).unwrap();
    let filler = staging.next_id();
    drop(staging.create(5));
    for n in 0..FILES {
        let file = staging.create(base(n)).unwrap();
        let id = file.id();
        if base(n) > 0 {
            file.write_at(5000, &content(n, whole(3000))).unwrap();
        }
        file.append(&content(n + 50, whole(10_000))).unwrap();
        file.sync().unwrap();
        say(&format!("synced {n} 0 {}", id.0), dir);
        staging.note(id, Some(format!("{n} 0").as_bytes())).unwrap();
        say(&format!("noted {n} 0 {}", id.0), dir);
        file.append(&content(n + 60, whole(7_000))).unwrap();
        let note = format!("{n} 1");
        if n % 2 == 0 {
            file.sync().unwrap();
            say(&format!("synced {n} 1 {}", id.0), dir);
            staging.note(id, Some(note.as_bytes())).unwrap();
            say(&format!("noted {n} 1 {}", id.0), dir);
        } else {
            let note = Some(note.as_bytes());
            staging.note_over(id, note, Outlives::Kill, None).unwrap();
            say(&format!("lit {n} 1 {}", id.0), dir);
        }
        if n == 3 {
            file.sync().unwrap();
            say(&format!("synced {n} 1 {}", id.0), dir);
            assert_eq!(staging.harden().unwrap(), 1);
            say(&format!("noted {n} 1 {}", id.0), dir);
        }
        staging.note(filler, Some(&vec![0; LARGE])).unwrap();
        say(&format!("filler {}", filler.0), dir);
        if n % 4 < 2 {
            file.fill_base(0, &old(whole(base(n)))).unwrap();
            staging.note(id, None).unwrap();
            say(&format!("noted {n} 2 {}", id.0), dir);
            assert!(store.adopt(crate::support::id(n), file).unwrap());
            say(&format!("adopted {n}"), dir);
        } else {
            // Never synced: over the older version, and behind the end.
            if base(n) > 0 {
                file.write_at(12_000, &[1; 500]).unwrap();
            }
            file.append(&[2; 9000]).unwrap();
        }
        if n == 1 {
            assert!(store.relabel(crate::support::id(1), crate::support::id(101)));
            say("relabelled", dir);
        }
    }
}

/// What the process told before it died.
#[derive(Default)]
struct Told {
    /// Version by id: 0, 1, or 2 when the note was removed.
    notes: HashMap<u64, (u64, u64)>,
    /// The same of what outlives a power cut.
    sealed: HashMap<u64, (u64, u64)>,
    /// Number and version of what is durable, by id.
    synced: HashMap<u64, (u64, u64)>,
    adopted: Vec<u64>,
    relabelled: bool,
    /// Length of the file of notes when the last note was durable.
    durable: u64,
    finished: bool,
}

fn run(dir: &Path, point: &str, passage: usize) -> Told {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env("FOREBAY_CRASH_AT", format!("{point}:{passage}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut told = Told::default();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((_, ack)) = line.split_once("ack ") else {
            continue;
        };
        let words: Vec<&str> = ack.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "synced" => drop(told.synced.insert(number(3), (number(1), number(2)))),
            "lit" => {
                told.notes.insert(number(3), (number(1), number(2)));
                continue;
            }
            "noted" => {
                told.notes.insert(number(3), (number(1), number(2)));
                told.sealed.insert(number(3), (number(1), number(2)));
            }
            "filler" => {}
            "adopted" => told.adopted.push(number(1)),
            "relabelled" => told.relabelled = true,
            other => panic!("{other}"),
        }
        told.durable = number(words.len() - 1);
    }
    told.finished = child.wait().unwrap().success();
    told
}

/// Opens what is left and compares it with what was told. After a power cut cached objects may be
/// missing, as long as no wrong byte is read.
fn check(dir: &Path, told: &Told, power_cut: bool) {
    let store = open(dir);
    let boot = match power_cut {
        true => Some(BootId([2; 16])),
        false => BOOT,
    };
    let (staging, recovered) = stage_after(dir, Some(Arc::clone(&store)), boot).unwrap();
    let mut found = HashMap::new();
    for note in recovered {
        if note.note.len() == LARGE || note.aside.is_some() {
            continue;
        }
        let text = String::from_utf8(note.note).unwrap();
        let (n, version) = text.split_once(' ').unwrap();
        let (n, version): (u64, u64) = (n.parse().unwrap(), version.parse().unwrap());
        let file = note.file.expect("a noted file is there");
        compare(&file, n, version);
        found.insert(note.id.0, version);
    }
    for (id, (n, version)) in &told.notes {
        let now = found.get(id).copied().unwrap_or(2);
        let is_right = match power_cut {
            false => now == *version || now == version + 1,
            true => {
                now >= told.sealed.get(id).map_or(0, |(_, sealed)| *sealed) && now <= version + 1
            }
        };
        assert!(is_right, "file {n}: told {version}, found {now}");
    }
    assert!(found.len() <= told.notes.len() + 1);
    let noted = found.len();
    assert_eq!(
        staged_files(dir).len(),
        noted,
        "files without a note are gone"
    );
    for n in &told.adopted {
        check_cached(&store, *n, told, power_cut);
    }
    // Life goes on.
    let id = staging.next_id();
    assert!(found.keys().all(|known| StagedId(*known) < id));
    staging.note(id, Some(b"next")).unwrap();
}

fn compare(file: &StagedFile, n: u64, version: u64) {
    assert!(
        seen(file) == expected(n, version),
        "file {n} at version {version}"
    );
}

fn check_cached(store: &cache::Store, n: u64, told: &Told, power_cut: bool) {
    let bytes = expected(n, 1);
    let mut hit = false;
    for id in [id(n), id(n + 100)] {
        let mut buf = Vec::new();
        if store.read(id, whole(bytes.len() as u64), &mut buf) {
            assert!(buf == bytes, "object {n}");
            hit = true;
        }
    }
    // A file moved but not noted yet is fetched again.
    let moving = n == 1 && !told.relabelled;
    assert!(
        hit || power_cut || moving,
        "object {n} is not cached any more"
    );
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn cut(path: &Path, len: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

/// Returns the durable length of each staged file that was told of.
fn synced_lengths(dir: &Path, told: &Told) -> Vec<(PathBuf, u64)> {
    let lengths = told.synced.iter().map(|(id, (n, version))| {
        let path = dir.join(format!("staged/{id:016x}"));
        (path, expected(*n, *version).len() as u64)
    });
    lengths
        .filter(|(path, _)| path.try_exists().unwrap())
        .collect()
}

/// Makes of a directory what a power cut could have left of it.
fn cut_power(dir: &Path, told: &Told, way: usize) {
    let notes = notes_file(dir);
    let len = std::fs::metadata(&notes).map_or(0, |found| found.len());
    // A rewritten file is all synced; only what was appended to the one told of is in doubt.
    if told.durable > 0 && len > told.durable {
        let half = told.durable + (len - told.durable) / 2;
        let kept = match way {
            0 => told.durable,
            1 => half,
            2 => len - 1,
            // The disk wrote the end first.
            _ => {
                let file = std::fs::OpenOptions::new()
                    .write(true)
                    .open(&notes)
                    .unwrap();
                let zeros = vec![0; in_memory(half - told.durable)];
                file.write_all_at(&zeros, told.durable).unwrap();
                len
            }
        };
        cut(&notes, kept);
        if way == 1 {
            cut(&notes, len);
        }
    }
    for (path, synced) in synced_lengths(dir, told) {
        let len = std::fs::metadata(&path).map_or(0, |found| found.len());
        if len > synced {
            cut(&path, synced + (len - synced) * way as u64 / 4);
            if way > 0 {
                cut(&path, len);
            }
        }
    }
    for prefix in std::fs::read_dir(dir.join("data")).into_iter().flatten() {
        for file in std::fs::read_dir(prefix.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let len = std::fs::metadata(&path).unwrap().len();
            cut(&path, len / (1 + way as u64));
            cut(&path, len);
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_any_point() {
    if let Some(dir) = std::env::var_os(DIR) {
        return work(Path::new(&dir));
    }
    let mut passages = 0;
    for point in crash::points() {
        if !point.starts_with("staged.") && !point.starts_with("cache.") {
            continue;
        }
        for passage in 1.. {
            let dir = temp();
            let told = run(dir.path(), point, passage);
            if told.finished {
                assert!(passage > 1, "{point} is never passed");
                break;
            }
            passages += 1;
            for way in 0..4 {
                let image = temp();
                copy(dir.path(), image.path());
                cut_power(image.path(), &told, way);
                check(image.path(), &told, true);
            }
            check(dir.path(), &told, false);
        }
    }
    assert!(passages > 60, "{passages} crashes");
}

#[test]
fn the_expected_bytes_tell_the_versions_apart() {
    for n in 0..FILES {
        let (first, second) = (expected(n, 0), expected(n, 1));
        assert_eq!(first[..], second[..first.len()]);
        let base = ByteRange::new(0, base(n));
        assert!(first.len() > in_memory(base.len));
    }
}
