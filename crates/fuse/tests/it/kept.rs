// SPDX-License-Identifier: Apache-2.0
//! Cache files that the kernel was told of stay known to it between two uses, and cost nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::rig::{Rig, bytes, drain};

const MIB: usize = 1 << 20;

#[test]
fn the_kernel_is_told_of_a_cache_file_once() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), bytes(50_000)).unwrap());
    drop(rig.complete("file"));
    rig.wait_until_closed();
    let before = rig.session.stats().handed;
    assert!(before >= 1);
    for _ in 0..100 {
        let file = rig.open("file");
        assert_eq!(rig.session.stats().open_passthrough, 1);
        assert_eq!(drain(&file), bytes(50_000));
        drop(file);
        rig.wait_until_closed();
    }
    // A thread that has answered an open and not gone on yet still holds what it answered with.
    let again = rig.session.stats().handed - before;
    assert!(again <= 3, "{again} of 100 opens handed it over again");
}

#[test]
fn a_cache_file_that_is_touched_between_two_opens_is_checked_again() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), bytes(300_000)).unwrap());
    drop(rig.complete("file"));
    rig.wait_until_closed();
    let [path] = &rig.cache_files()[..] else {
        panic!("one object is one file")
    };
    for round in 0..3 {
        let handed = rig.session.stats().handed;
        let at = 100_000 * round;
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&[!bytes(300_000)[at]], at as u64)
            .unwrap();
        assert_eq!(drain(&rig.open("file")), bytes(300_000), "{round}");
        rig.wait_until_closed();
        assert_eq!(drain(&rig.complete("file")), bytes(300_000), "{round}");
        rig.wait_until_closed();
        assert!(
            rig.session.stats().handed > handed,
            "it is not the file of before"
        );
    }
}

#[test]
fn what_the_kernel_knows_takes_no_room_of_a_small_cache() {
    let files = 150;
    let name = |index: usize| format!("{index:03}");
    let content = |index: usize| bytes(MIB + index);
    let rig = Rig::with_small_cache(|dir| {
        for index in 0..files {
            std::fs::write(dir.join(name(index)), content(index)).unwrap();
        }
    });
    for _ in 0..2 {
        for index in 0..files {
            assert_eq!(drain(&rig.open(&name(index))), content(index));
            rig.wait_until_closed();
            // The last object written may still be on its way.
            let used = rig.disk_used();
            assert!(used <= 66 << 20, "{used} bytes of 64 MiB at file {index}");
        }
    }
    let handed = rig.session.stats().handed;
    assert!(
        handed > files as u64,
        "evicted files are handed over anew: {handed}"
    );
}
