// SPDX-License-Identifier: Apache-2.0
//! Somebody else changes cache files: with the store running, closed, and stopped without a close.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

use cache::Store;
use types::{PAGE_SIZE, PageRange};

use crate::support::*;

const SIZE: u64 = 9 * PAGE_SIZE + 1000;
const COUNT: usize = 10;
const PAGES: u64 = COUNT as u64;

/// What the store does while somebody touches a file.
#[derive(Debug, Clone, Copy)]
enum Meanwhile {
    Runs,
    IsClosed,
    IsDead,
}

const ALL: [Meanwhile; 3] = [Meanwhile::Runs, Meanwhile::IsClosed, Meanwhile::IsDead];

/// Fills objects 1 and 2, touches the file of 1 and returns the store.
fn touched(dir: &Path, meanwhile: Meanwhile, touch: impl FnOnce(&Path)) -> Arc<Store> {
    let store = open(dir);
    fill(&store, 1, SIZE);
    fill(&store, 2, SIZE);
    // Opens its file, as a running store would have it.
    assert!(hits(&store, 1, whole(SIZE)));
    match meanwhile {
        Meanwhile::Runs => {
            touch(&file_of(dir, 1));
            return store;
        }
        Meanwhile::IsClosed => store.close(),
        Meanwhile::IsDead => {}
    }
    drop(store);
    touch(&file_of(dir, 1));
    open(dir)
}

#[test]
fn a_bit_flipped_in_any_page_is_a_miss_of_that_page_only() {
    for meanwhile in ALL {
        for bad in 0..PAGES {
            let dir = temp();
            let offset = page(SIZE, bad).end() - 1;
            let store = touched(dir.path(), meanwhile, |file| flip(file, offset));
            let expected: Vec<bool> = (0..PAGES).map(|at| at != bad).collect();
            assert_eq!(
                readable(&store, 1, SIZE),
                expected,
                "page {bad}, {meanwhile:?}"
            );
            assert_eq!(readable(&store, 1, SIZE), expected);
            assert_eq!(store.stats().corrupt, 1);
            let all = PageRange {
                first: 0,
                end: PAGES,
            };
            assert_eq!(
                store.present(id(1), all),
                expected,
                "what is bad must be fetched"
            );
            assert!(store.local_file(id(1)).is_none());
            fill_page(&store, 1, SIZE, bad);
            assert!(hits(&store, 1, whole(SIZE)));
            assert!(store.local_file(id(1)).is_some());
            assert!(hits(&store, 2, whole(SIZE)));
        }
    }
}

#[test]
fn a_bit_flipped_is_never_handed_out_in_a_file() {
    for meanwhile in ALL {
        let dir = temp();
        let store = touched(dir.path(), meanwhile, |file| flip(file, 5 * PAGE_SIZE));
        assert!(store.local_file(id(1)).is_none(), "{meanwhile:?}");
        assert!(!store.contains_whole(id(1)));
        assert!(store.local_file(id(2)).is_some());
    }
}

#[test]
fn a_truncated_file_loses_the_pages_cut_off() {
    for meanwhile in ALL {
        let dir = temp();
        let store = touched(dir.path(), meanwhile, |file| {
            OpenOptions::new()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(3 * PAGE_SIZE + 5)
                .unwrap();
        });
        assert!(store.local_file(id(1)).is_none());
        let expected: Vec<bool> = (0..PAGES).map(|at| at < 3).collect();
        assert_eq!(readable(&store, 1, SIZE), expected, "{meanwhile:?}");
        fill(&store, 1, SIZE);
        assert!(hits(&store, 1, whole(SIZE)));
    }
}

#[test]
fn a_file_truncated_and_grown_again_has_no_holes_that_are_read() {
    for meanwhile in ALL {
        let dir = temp();
        let store = touched(dir.path(), meanwhile, |file| {
            let file = OpenOptions::new().write(true).open(file).unwrap();
            file.set_len(PAGE_SIZE).unwrap();
            file.set_len(SIZE).unwrap();
        });
        let expected: Vec<bool> = (0..PAGES).map(|at| at < 1).collect();
        assert_eq!(readable(&store, 1, SIZE), expected, "{meanwhile:?}");
    }
}

#[test]
fn a_file_that_grew_is_thrown_away() {
    for meanwhile in ALL {
        let dir = temp();
        let store = touched(dir.path(), meanwhile, |file| {
            OpenOptions::new()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(SIZE + 1)
                .unwrap();
        });
        assert!(store.local_file(id(1)).is_none(), "{meanwhile:?}");
        assert!(!hits(&store, 1, whole(SIZE)));
        fill(&store, 1, SIZE);
        assert_eq!(
            bytes_of(&store.local_file(id(1)).unwrap().open().unwrap()).len() as u64,
            SIZE
        );
    }
}

#[test]
fn a_file_replaced_by_another_is_not_read() {
    for meanwhile in ALL {
        let dir = temp();
        let store = touched(dir.path(), meanwhile, |file| {
            let other = file.with_extension("other");
            std::fs::write(&other, content(77, whole(SIZE))).unwrap();
            std::fs::rename(other, file).unwrap();
        });
        assert_eq!(
            readable(&store, 1, SIZE),
            vec![false; COUNT],
            "{meanwhile:?}"
        );
        fill(&store, 1, SIZE);
        assert!(hits(&store, 1, whole(SIZE)));
    }
}

#[test]
fn a_file_replaced_by_a_copy_of_itself_is_read_on() {
    for meanwhile in ALL {
        let dir = temp();
        let store = touched(dir.path(), meanwhile, |file| {
            let copy = file.with_extension("copy");
            std::fs::copy(file, &copy).unwrap();
            std::fs::rename(copy, file).unwrap();
        });
        assert_eq!(
            readable(&store, 1, SIZE),
            vec![true; COUNT],
            "{meanwhile:?}"
        );
        assert!(store.local_file(id(1)).is_some());
    }
}

#[test]
fn a_file_deleted_or_replaced_by_something_odd_is_a_miss() {
    let ways: [fn(&Path); 3] = [
        |_| {},
        |file| std::fs::create_dir(file).unwrap(),
        |file| std::os::unix::fs::symlink("/etc/passwd", file).unwrap(),
    ];
    for meanwhile in ALL {
        for (number, way) in ways.iter().enumerate() {
            let dir = temp();
            let store = touched(dir.path(), meanwhile, |file| {
                std::fs::remove_file(file).unwrap();
                way(file);
            });
            assert!(!hits(&store, 1, whole(SIZE)), "{meanwhile:?} {number}");
            assert!(store.local_file(id(1)).is_none());
            assert!(hits(&store, 2, whole(SIZE)));
            assert_eq!(store.stats().retired, None);
            if number == 0 {
                fill(&store, 1, SIZE);
                assert!(hits(&store, 1, whole(SIZE)));
            }
        }
    }
}

#[test]
fn a_fill_does_not_hide_what_somebody_else_wrote() {
    let dir = temp();
    let store = open(dir.path());
    for at in 0..5 {
        fill_page(&store, 1, SIZE, at);
    }
    flip_in_page(dir.path(), 1, 2);
    fill_page(&store, 1, SIZE, 7);
    let good = [
        true, true, false, true, true, false, false, true, false, false,
    ];
    assert_eq!(readable(&store, 1, SIZE), good);
    drop(store);
    assert_eq!(readable(&open(dir.path()), 1, SIZE), good);
}

#[test]
fn touching_a_file_without_changing_it_costs_a_check_and_no_page() {
    for meanwhile in ALL {
        let dir = temp();
        let store = touched(dir.path(), meanwhile, |file| {
            let file = OpenOptions::new().write(true).open(file).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        });
        assert!(hits(&store, 1, whole(SIZE)));
        assert!(store.local_file(id(1)).is_some());
        assert_eq!(
            (store.stats().corrupt, store.stats().touched),
            (0, 1),
            "{meanwhile:?}"
        );
    }
}

#[test]
fn a_large_object_is_checked_in_the_background_before_it_is_handed_out() {
    let dir = temp();
    let size = 8 * MIB;
    let store = open(dir.path());
    fill(&store, 1, size);
    fill(&store, 2, size);
    store.close();
    drop(store);
    let store = open(dir.path());
    assert!(
        store.local_file(id(1)).is_some(),
        "a clean stop is believed"
    );
    drop(store);
    flip_in_page(dir.path(), 2, 63);
    let store = open(dir.path());
    assert!(store.local_file(id(1)).is_none(), "any other stop is not");
    eventually("object 1 is checked", || store.local_file(id(1)).is_some());
    assert!(store.local_file(id(2)).is_none());
    eventually("the bad page is found", || store.stats().corrupt == 1);
    assert!(store.local_file(id(2)).is_none());
    store.close();
    drop(store);
    let store = open(dir.path());
    assert!(
        store.local_file(id(1)).is_some(),
        "what was checked before a clean stop is believed"
    );
}
