// SPDX-License-Identifier: Apache-2.0
//! The key-value map: what survives which end, and which damage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use cache::kv::Kv;
use types::ErrorKind;

use crate::support::{cpu_ms, eventually, flip, mix, temp};

const CACHE: usize = 1 << 20;

fn open(dir: &Path) -> Arc<Kv> {
    Kv::open(&dir.join("map"), CACHE).unwrap()
}

fn put(kv: &Kv, key: &str, value: &str) {
    kv.write(vec![(key.into(), Some(value.into()))]).unwrap();
}

fn get(kv: &Kv, key: &str) -> Option<String> {
    kv.get(key.as_bytes())
        .unwrap()
        .map(|value| String::from_utf8(value).unwrap())
}

fn journals(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries
        .filter(|path| path.to_string_lossy().contains("journal-"))
        .collect();
    found.sort();
    found
}

#[test]
fn what_was_written_is_there_after_any_end() {
    for checkpoint in [false, true] {
        let dir = temp();
        let kv = open(dir.path());
        put(&kv, "a", "1");
        put(&kv, "b", "1");
        if checkpoint {
            kv.checkpoint().unwrap();
        }
        put(&kv, "b", "2");
        kv.write(vec![(b"a".to_vec(), None), (b"c".to_vec(), Some(vec![]))])
            .unwrap();
        for _ in 0..3 {
            assert_eq!(get(&kv, "a"), None);
            assert_eq!(get(&kv, "b").as_deref(), Some("2"));
            assert_eq!(get(&kv, "c").as_deref(), Some(""));
        }
        drop(kv);
        let kv = open(dir.path());
        assert_eq!(get(&kv, "a"), None);
        let all = kv.scan(b"", b"z").unwrap();
        assert_eq!(
            all,
            [(b"b".to_vec(), b"2".to_vec()), (b"c".to_vec(), vec![])]
        );
        assert_eq!(kv.damaged(), 0);
    }
}

#[test]
fn a_scan_is_in_order_and_within_its_bounds() {
    let dir = temp();
    let kv = open(dir.path());
    for n in [5, 1, 9, 3] {
        put(&kv, &n.to_string(), "base");
    }
    kv.checkpoint().unwrap();
    for n in [4, 2, 5] {
        put(&kv, &n.to_string(), "new");
    }
    kv.write(vec![(b"3".to_vec(), None)]).unwrap();
    let keys = |from: &str, to: &str| -> String {
        let pairs = kv.scan(from.as_bytes(), to.as_bytes()).unwrap();
        pairs
            .into_iter()
            .map(|(key, _)| String::from_utf8(key).unwrap())
            .collect()
    };
    assert_eq!(keys("", "z"), "12459");
    assert_eq!(keys("2", "5"), "24");
    assert_eq!(keys("5", "5"), "");
    assert_eq!(keys("6", "2"), "");
}

#[test]
fn a_torn_tail_loses_the_last_batch_only() {
    let dir = temp();
    let kv = open(dir.path());
    put(&kv, "a", "1");
    kv.write(vec![
        (b"b".to_vec(), Some(vec![1])),
        (b"c".to_vec(), Some(vec![1])),
    ])
    .unwrap();
    drop(kv);
    let journal = journals(dir.path()).pop().unwrap();
    let len = journal.metadata().unwrap().len();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&journal)
        .unwrap();
    file.set_len(len - 1).unwrap();
    let kv = open(dir.path());
    assert_eq!(get(&kv, "a").as_deref(), Some("1"));
    assert_eq!(
        (get(&kv, "b"), get(&kv, "c")),
        (None, None),
        "a batch is all or nothing"
    );
    assert_eq!(kv.damaged(), 1);
    put(&kv, "d", "1");
    drop(kv);
    assert_eq!(get(&open(dir.path()), "d").as_deref(), Some("1"));
}

#[test]
fn a_flipped_journal_byte_loses_what_follows_and_invents_nothing() {
    let dir = temp();
    let kv = open(dir.path());
    for n in 0..10 {
        put(&kv, &n.to_string(), "value");
    }
    drop(kv);
    let journal = journals(dir.path()).pop().unwrap();
    flip(&journal, journal.metadata().unwrap().len() / 2);
    let kv = open(dir.path());
    let kept = kv.scan(b"", b"z").unwrap();
    assert!(!kept.is_empty() && kept.len() < 10, "{}", kept.len());
    assert!(kept.iter().all(|(_, value)| value == b"value"));
}

#[test]
fn a_journal_left_behind_by_a_crash_after_its_checkpoint_is_not_replayed() {
    let dir = temp();
    let kv = open(dir.path());
    put(&kv, "a", "old");
    let journal = journals(dir.path()).pop().unwrap();
    let old = std::fs::read(&journal).unwrap();
    kv.checkpoint().unwrap();
    put(&kv, "a", "new");
    kv.checkpoint().unwrap();
    drop(kv);
    std::fs::write(&journal, old).unwrap();
    let kv = open(dir.path());
    assert_eq!(get(&kv, "a").as_deref(), Some("new"));
    assert!(!journal.try_exists().unwrap());
}

#[test]
fn journals_not_checkpointed_are_replayed_in_order() {
    let dir = temp();
    let kv = open(dir.path());
    put(&kv, "a", "1");
    put(&kv, "b", "1");
    let first = journals(dir.path()).pop().unwrap();
    let old = std::fs::read(&first).unwrap();
    drop(kv);
    // As if a crash had come between the start of the second journal and the checkpoint.
    std::fs::remove_file(dir.path().join("map.redb")).unwrap();
    let kv = open(dir.path());
    put(&kv, "a", "2");
    let second = journals(dir.path()).pop().unwrap();
    let new = std::fs::read(&second).unwrap();
    drop(kv);
    std::fs::remove_file(dir.path().join("map.redb")).unwrap();
    std::fs::write(&first, old).unwrap();
    std::fs::write(&second, new).unwrap();
    let kv = open(dir.path());
    assert_eq!(get(&kv, "a").as_deref(), Some("2"));
    assert_eq!(get(&kv, "b").as_deref(), Some("1"));
    kv.checkpoint().unwrap();
    assert_eq!(
        journals(dir.path()).len(),
        1,
        "only the current one is left"
    );
}

#[test]
fn a_damaged_redb_file_starts_empty_and_works() {
    for size in [0, 10, 4096, 1_000_000] {
        let dir = temp();
        let kv = open(dir.path());
        put(&kv, "a", "1");
        kv.checkpoint().unwrap();
        drop(kv);
        let bytes: Vec<u8> = (0..size).map(|n| mix(n).to_le_bytes()[0]).collect();
        std::fs::write(dir.path().join("map.redb"), bytes).unwrap();
        let kv = open(dir.path());
        assert_eq!(get(&kv, "a"), None);
        assert_eq!(kv.damaged(), u64::from(size > 0));
        put(&kv, "b", "1");
        kv.checkpoint().unwrap();
        drop(kv);
        assert_eq!(get(&open(dir.path()), "b").as_deref(), Some("1"));
    }
}

#[test]
fn any_byte_of_the_redb_file_may_flip() {
    let dir = temp();
    let kv = open(dir.path());
    let pairs: BTreeMap<Vec<u8>, Vec<u8>> = (0..500_u64)
        .map(|n| (n.to_be_bytes().to_vec(), mix(n).to_le_bytes().to_vec()))
        .collect();
    kv.write(
        pairs
            .iter()
            .map(|(k, v)| (k.clone(), Some(v.clone())))
            .collect(),
    )
    .unwrap();
    kv.checkpoint().unwrap();
    drop(kv);
    let good = std::fs::read(dir.path().join("map.redb")).unwrap();
    UNANNOUNCED.get_or_init(watch_panics);
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    for at in used.iter().step_by(used.len() / 200) {
        let dir = temp();
        let mut bad = good.clone();
        bad[*at] ^= 0x24;
        std::fs::write(dir.path().join("map.redb"), bad).unwrap();
        let kv = open(dir.path());
        for (key, value) in kv.scan(&[0], &[0xff]).unwrap() {
            assert_eq!(pairs.get(&key), Some(&value), "byte {at}");
        }
        for (key, value) in &pairs {
            let found = kv.get(key).unwrap();
            assert!(
                found.is_none() || found.as_ref() == Some(value),
                "byte {at}"
            );
        }
        put(&kv, "new", "1");
        kv.checkpoint().unwrap();
        assert_eq!(get(&kv, "new").as_deref(), Some("1"), "byte {at}");
    }
    let unannounced = UNANNOUNCED.get().unwrap().lock().unwrap();
    assert_eq!(*unannounced, Vec::<String>::new(), "a program would end");
}

/// Panics of redb that no panic hook could have known to be caught.
static UNANNOUNCED: OnceLock<Arc<Mutex<Vec<String>>>> = OnceLock::new();

fn watch_panics() -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (hook, list) = (std::panic::take_hook(), Arc::clone(&seen));
    std::panic::set_hook(Box::new(move |panic| {
        let at = panic.location().map(ToString::to_string);
        let of_redb = at.filter(|at| at.contains("/redb-"));
        match of_redb {
            None => hook(panic),
            Some(_) if cache::kv::catches_panics() => {}
            Some(at) => list.lock().unwrap().push(at),
        }
    }));
    seen
}

#[test]
fn the_journal_is_moved_when_it_is_large() {
    let dir = temp();
    let kv = open(dir.path());
    for n in 0..300_u16 {
        kv.write(vec![(n.to_be_bytes().to_vec(), Some(vec![7; 100_000]))])
            .unwrap();
    }
    eventually("the files shrink", || {
        let bytes: u64 = journals(dir.path())
            .iter()
            .map(|j| j.metadata().map_or(0, |m| m.len()))
            .sum();
        bytes < 20 << 20
    });
    assert_eq!(kv.scan(&[], &[255]).unwrap().len(), 300);
}

#[test]
fn a_second_opener_is_refused() {
    let dir = temp();
    let kv = open(dir.path());
    let error = Kv::open(&dir.path().join("map"), CACHE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    put(&kv, "a", "1");
}

#[test]
fn files_that_cannot_be_made_are_a_clear_error() {
    let dir = temp();
    let error = Kv::open(&dir.path().join("missing/map"), CACHE).unwrap_err();
    assert!(error.to_string().contains("missing/map.redb"), "{error}");
    std::fs::create_dir(dir.path().join("map.redb")).unwrap();
    let error = Kv::open(&dir.path().join("map"), CACHE).unwrap_err();
    assert!(error.to_string().contains("map.redb"), "{error}");
}

#[test]
fn a_hundred_thousand_keys_open_in_well_under_a_second() {
    let dir = temp();
    let kv = open(dir.path());
    for batch in 0..100_u64 {
        let pairs = (0..1000).map(|n| {
            let key = mix(batch * 1000 + n).to_be_bytes().to_vec();
            (key, Some(vec![9; 60]))
        });
        kv.write(pairs.collect()).unwrap();
    }
    drop(kv);
    for checkpoint in [true, false] {
        let started = cpu_ms();
        let kv = open(dir.path());
        assert_eq!(kv.scan(&[], &[0xff; 9]).unwrap().len(), 100_000);
        let took = cpu_ms() - started;
        assert!(took < 1000, "{took} ms");
        if checkpoint {
            kv.checkpoint().unwrap();
        }
    }
}

#[test]
fn many_threads_write_and_read_their_own_keys() {
    let dir = temp();
    let kv = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let kv = &kv;
            scope.spawn(move || {
                for n in 0..500_u16 {
                    let key = [&[thread], &n.to_be_bytes()[..]].concat();
                    kv.write(vec![(key.clone(), Some(vec![thread; 50]))])
                        .unwrap();
                    assert_eq!(kv.get(&key).unwrap(), Some(vec![thread; 50]));
                    if n % 100 == 0 {
                        kv.checkpoint().unwrap();
                    }
                }
                let mine = kv.scan(&[thread], &[thread + 1]).unwrap();
                assert_eq!(mine.len(), 500);
            });
        }
    });
}
