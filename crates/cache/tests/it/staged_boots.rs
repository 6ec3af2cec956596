// SPDX-License-Identifier: Apache-2.0
//! Notes that outlive a kill, and what a power cut leaves of them.
//!
//! A kill leaves the directory as it is: it is played by a copy that is taken while the process has
//! it, and a power cut by such a copy that is opened in another boot.

use std::path::Path;

use cache::staged::{BootId, Outlives, Recovered, StagedFile, Staging};
use types::ErrorKind;

use crate::staged_crash::copy;
use crate::staged_support::*;
use crate::support::*;

const NEXT_BOOT: Option<BootId> = Some(BootId([2; 16]));

/// Returns a copy of a directory as a kill leaves it.
fn killed(dir: &Path) -> tempfile::TempDir {
    let image = temp();
    copy(dir, image.path());
    image
}

fn after(dir: &Path, boot: Option<BootId>) -> Vec<Recovered> {
    stage_after(dir, None, boot).unwrap().1
}

fn light(staging: &Staging, file: &StagedFile, note: &[u8]) {
    staging
        .note_over(file.id(), Some(note), Outlives::Kill, None)
        .unwrap();
}

fn texts(recovered: &[Recovered]) -> Vec<&str> {
    let kept = recovered.iter().filter(|one| one.aside.is_none());
    kept.map(|one| std::str::from_utf8(&one.note).unwrap())
        .collect()
}

#[test]
fn a_kill_leaves_the_file_as_it_was_noted_and_a_power_cut_puts_it_aside_once() {
    let dir = temp();
    let (staging, _) = stage(dir.path());
    let file = staging.create(4).unwrap();
    file.write_at(0, b"1234").unwrap();
    file.append(b"56").unwrap();
    light(&staging, &file, b"one");
    file.append(b"78").unwrap();
    let image = killed(dir.path());
    let found = after(image.path(), BOOT);
    assert_eq!(texts(&found), ["one"]);
    assert_eq!(seen(found[0].file.as_ref().unwrap()), b"123456");

    let image = killed(dir.path());
    let found = after(image.path(), NEXT_BOOT);
    let [lost] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert!(lost.note == b"one" && lost.file.is_none());
    let aside = std::fs::read(lost.aside.as_ref().unwrap()).unwrap();
    assert_eq!(aside, b"12345678");
    drop(found);
    assert!(after(image.path(), NEXT_BOOT).is_empty(), "it is told once");
}

#[test]
fn after_a_power_cut_the_last_note_that_outlives_one_holds_again() {
    let dir = temp();
    let (staging, _) = stage(dir.path());
    let file = staging.create(0).unwrap();
    file.append(b"synced").unwrap();
    file.sync().unwrap();
    staging.note(file.id(), Some(b"sealed")).unwrap();
    file.append(b" and more").unwrap();
    light(&staging, &file, b"light");
    // The file of notes that a start writes has both.
    let image = killed(dir.path());
    let (again, _recovered) = stage(image.path());
    let image = killed(image.path());
    drop(again);
    let found = after(image.path(), NEXT_BOOT);
    assert_eq!(texts(&found), ["sealed"]);
    assert_eq!(seen(found[0].file.as_ref().unwrap()), b"synced");
    let image = killed(dir.path());
    let found = after(image.path(), BOOT);
    assert_eq!(texts(&found), ["light"]);
    assert_eq!(seen(found[0].file.as_ref().unwrap()), b"synced and more");
    // Both go together.
    staging.note(file.id(), None).unwrap();
    assert!(after(killed(dir.path()).path(), NEXT_BOOT).is_empty());
}

#[test]
fn what_is_hardened_outlives_a_power_cut_however_many_they_are() {
    let dir = temp();
    let (staging, _) = stage(dir.path());
    let mut files = Vec::new();
    for n in 0..3u64 {
        for number in 0..(1 + 39 * n) {
            let file = staging.create(0).unwrap();
            file.append(&content(n * 100 + number, whole(5000)))
                .unwrap();
            light(&staging, &file, format!("{n} {number}").as_bytes());
            files.push(file);
        }
        assert_eq!(staging.harden().unwrap() as u64, 1 + 39 * n);
        assert_eq!(staging.harden().unwrap(), 0);
        let image = killed(dir.path());
        let found = after(image.path(), NEXT_BOOT);
        assert_eq!(found.len(), files.len());
        for (found, file) in found.iter().zip(&files) {
            assert_eq!((found.id, &found.aside), (file.id(), &None));
            assert_eq!(seen(found.file.as_ref().unwrap()), seen(file));
        }
    }
}

#[test]
fn what_is_noted_anew_or_removed_meanwhile_is_not_hardened_as_it_was() {
    let dir = temp();
    let (staging, _) = stage(dir.path());
    let files: Vec<_> = (0..40).map(|_| staging.create(0).unwrap()).collect();
    std::thread::scope(|scope| {
        let hardening = scope.spawn(|| {
            for _ in 0..10 {
                staging.harden().unwrap();
            }
        });
        for round in 0..50u32 {
            for file in &files {
                file.append(&round.to_le_bytes()).unwrap();
                light(&staging, file, round.to_string().as_bytes());
            }
        }
        for file in files.iter().step_by(2) {
            staging.note(file.id(), None).unwrap();
        }
        hardening.join().unwrap();
    });
    let image = killed(dir.path());
    let found = after(image.path(), BOOT);
    assert_eq!(texts(&found), ["49"; 20]);
    for one in &found {
        assert_eq!(one.file.as_ref().unwrap().len(), 200);
    }
    drop((staging, files));
    assert_eq!(texts(&after(dir.path(), NEXT_BOOT)), ["49"; 20]);
}

#[test]
fn an_end_in_peace_leaves_nothing_to_a_power_cut() {
    let dir = temp();
    let (staging, _) = stage(dir.path());
    let file = staging.create(0).unwrap();
    file.append(b"bytes").unwrap();
    light(&staging, &file, b"light");
    drop(staging);
    drop(file);
    let found = after(dir.path(), NEXT_BOOT);
    assert_eq!(texts(&found), ["light"]);
    assert_eq!(seen(found[0].file.as_ref().unwrap()), b"bytes");
}

#[test]
fn where_the_boot_is_not_known_every_note_outlives_a_power_cut() {
    let dir = temp();
    let (staging, _) = stage_after(dir.path(), None, None).unwrap();
    let file = staging.create(0).unwrap();
    file.append(b"bytes").unwrap();
    light(&staging, &file, b"asked for less");
    assert!(staging.is_sealed(file.id()));
    let image = killed(dir.path());
    assert_eq!(texts(&after(image.path(), NEXT_BOOT)), ["asked for less"]);
}

#[test]
fn what_was_not_synced_of_the_notes_may_be_gone_after_a_power_cut_and_is_damage_without_one() {
    let dir = temp();
    let (staging, _) = stage(dir.path());
    let file = staging.create(0).unwrap();
    file.append(b"bytes").unwrap();
    file.sync().unwrap();
    staging.note(file.id(), Some(b"sealed")).unwrap();
    let durable = std::fs::metadata(notes_file(dir.path())).unwrap().len();
    for round in 0..10 {
        light(&staging, &file, format!("light {round}").as_bytes());
    }
    let damaged = |at: u64| {
        let image = killed(dir.path());
        let path = notes_file(image.path());
        let mut bytes = std::fs::read(&path).unwrap();
        let at = usize::try_from(at).unwrap();
        bytes[at..at + 40].fill(0);
        std::fs::write(&path, bytes).unwrap();
        image
    };
    let open = |image: &tempfile::TempDir, boot| stage_after(image.path(), None, boot);
    let image = damaged(durable);
    assert_eq!(open(&image, BOOT).unwrap_err().kind(), ErrorKind::Corrupt);
    let (_, found) = open(&image, NEXT_BOOT).unwrap();
    assert_eq!(texts(&found), ["sealed"]);
    for boot in [BOOT, NEXT_BOOT] {
        let image = damaged(durable - 40);
        let error = open(&image, boot).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Corrupt,
            "what was synced is damaged"
        );
    }
}
