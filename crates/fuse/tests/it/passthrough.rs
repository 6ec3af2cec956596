// SPDX-License-Identifier: Apache-2.0
//! The kernel reads complete cache files itself, and never mixes that with other modes.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Barrier;

use fuse::Passthrough;

use crate::rig::{Map, Rig, bytes, drain, reads};

const LARGE: usize = 10_000_000;

#[test]
fn a_complete_file_is_read_by_the_kernel_itself() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), bytes(300_000)).unwrap());
    assert_eq!(
        rig.session.stats().passthrough,
        Passthrough::On,
        "this kernel and user can"
    );
    let file = rig.complete("file");
    assert_eq!(rig.session.stats().open_passthrough, 1);
    let before = reads(&rig);
    assert_eq!(drain(&file), bytes(300_000));
    let map = Map::of(&file, 300_000);
    assert_eq!(map.bytes(), bytes(300_000));
    assert_eq!(
        reads(&rig),
        before,
        "no read of a passthrough file reaches us"
    );
    drop((file, map));
    rig.wait_until_closed();
}

#[test]
fn a_mapping_keeps_its_mode_after_its_file_was_closed() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), bytes(LARGE)).unwrap());
    let file = rig.incomplete("file");
    let map = Map::of(&file, LARGE);
    drop(file);
    assert_eq!(
        drain(&rig.open("file")),
        bytes(LARGE),
        "the file is complete from here on"
    );
    let again = rig.open("file");
    assert_eq!(drain(&again), bytes(LARGE));
    assert_eq!(
        rig.session.stats().open_passthrough,
        0,
        "the mapping still lives"
    );
    assert_eq!(map.bytes(), bytes(LARGE));
    drop((map, again));
    rig.wait_until_closed();
    assert_eq!(drain(&rig.complete("file")), bytes(LARGE));
}

#[test]
fn a_file_that_completes_while_open_stays_cached_until_all_have_closed_it() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), bytes(LARGE)).unwrap());
    let first = rig.incomplete("file");
    assert_eq!(drain(&first), bytes(LARGE));
    let second = rig.open("file");
    assert_eq!(
        drain(&second),
        bytes(LARGE),
        "a mixture of modes would be EIO"
    );
    let stats = rig.session.stats();
    assert_eq!((stats.open_passthrough, stats.open_cached), (0, 2));
    drop(first);
    let third = rig.open("file");
    assert_eq!(drain(&third), bytes(LARGE));
    assert_eq!(
        rig.session.stats().open_passthrough,
        0,
        "the second open still lives"
    );
    drop((second, third));
    rig.wait_until_closed();
    let fourth = rig.complete("file");
    assert_eq!(drain(&fourth), bytes(LARGE));
    assert_eq!(rig.session.stats().open_passthrough, 1);
}

#[test]
fn two_thousand_opens_and_closes_in_turn_never_fail() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), bytes(5_000)).unwrap());
    drop(rig.complete("file"));
    let mut buffer = [0; 100];
    for round in 0..2_000 {
        let one = rig.open("file");
        let two = (round % 2 == 0).then(|| rig.open("file"));
        drop(one);
        let file = two.unwrap_or_else(|| rig.open("file"));
        file.read_exact_at(&mut buffer, 4_900)
            .unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(buffer[..], bytes(5_000)[4_900..]);
    }
    rig.wait_until_closed();
}

#[test]
fn sixty_four_threads_open_one_file_at_once() {
    let rig = Rig::new(|dir| {
        std::fs::write(dir.join("small"), bytes(100_000)).unwrap();
        std::fs::write(dir.join("large"), bytes(LARGE)).unwrap();
    });
    for name in ["small", "large", "small", "large"] {
        let size = if name == "small" { 100_000 } else { LARGE };
        let start = Barrier::new(64);
        std::thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    start.wait();
                    assert!(
                        drain(&rig.open(name)) == bytes(size),
                        "{name} has other bytes"
                    );
                });
            }
        });
    }
    rig.wait_until_closed();
}

#[test]
fn twenty_thousand_opens_leave_no_file_open_in_the_daemon() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), bytes(1_000)).unwrap());
    drop(rig.complete("file"));
    rig.wait_until_closed();
    // Other tests of this process open and close files meanwhile, but not thousands.
    let before = rig.files_of_ours();
    for _ in 0..20_000 {
        drop(rig.open("file"));
    }
    rig.wait_until_closed();
    let after = rig.files_of_ours();
    assert!(
        after <= before + 500,
        "{before} files were open before, {after} are now"
    );
}

#[test]
fn direct_reads_see_the_same_bytes_in_both_modes() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), bytes(LARGE)).unwrap());
    let direct = || {
        let mut options = File::options();
        options
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(rig.path("file"))
            .unwrap()
    };
    let keep = rig.incomplete("file");
    assert_eq!(rig.session.stats().open_passthrough, 0);
    assert_eq!(
        rig.read_aligned(&direct(), LARGE),
        bytes(LARGE),
        "while it is fetched"
    );
    drop(keep);
    drop(rig.complete("file"));
    rig.wait_until_closed();
    let file = direct();
    assert_eq!(rig.session.stats().open_passthrough, 1);
    assert_eq!(
        rig.read_aligned(&file, LARGE),
        bytes(LARGE),
        "by the kernel"
    );
}

#[test]
fn without_passthrough_everything_is_the_same_but_for_who_reads() {
    let rig = Rig::without_passthrough(|dir| {
        std::fs::write(dir.join("file"), bytes(LARGE)).unwrap();
    });
    let Passthrough::Off { reason } = rig.session.stats().passthrough else {
        panic!("it was switched off")
    };
    assert_eq!(reason, "it was switched off");
    let mut asked = Vec::new();
    // More than twice only where something else takes pages from the kernel meanwhile.
    for _ in 0..20 {
        let file = rig.open("file");
        assert_eq!(drain(&file), bytes(LARGE));
        assert_eq!(Map::of(&file, LARGE).bytes(), bytes(LARGE));
        assert_eq!(rig.session.stats().open_passthrough, 0);
        asked.push(reads(&rig));
        if asked.array_windows().any(|[before, after]| before == after) {
            break;
        }
    }
    assert!(asked[0] > 0);
    assert!(
        asked.len() < 20,
        "the kernel never kept its pages of this version: {asked:?}"
    );
}
