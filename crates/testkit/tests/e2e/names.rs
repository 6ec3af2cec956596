// SPDX-License-Identifier: Apache-2.0
//! Odd names, large directories, and names that are not there.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::{BUCKET, Storage};

fn listed(mount: &Mount<'_>, dir: &str) -> BTreeSet<OsString> {
    fs::read_dir(mount.path(dir))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect()
}

/// Names of every byte a key may have, one byte each between two letters, and some whole oddities.
fn odd_names(bytes: impl Iterator<Item = u8>) -> BTreeSet<OsString> {
    let singles = bytes
        .filter(|byte| *byte != b'/')
        .map(|byte| vec![b'x', byte, b'y']);
    let whole = [
        " ", "...", "..a", "a b", "%2F", "%", "+", "&amp;", "<>\"'", "\\", "*?[]", "#~$",
    ];
    let unicode = ["é", "e\u{301}", "日本語", "😀", "\u{202e}rtl", "ÿ"];
    let longest = ["n".repeat(255)];
    singles
        .chain(whole.iter().map(|name| name.as_bytes().to_vec()))
        .chain(unicode.iter().map(|name| name.as_bytes().to_vec()))
        .chain(longest.iter().map(|name| name.as_bytes().to_vec()))
        .map(OsString::from_vec)
        .collect()
}

fn every_name_is_listed_and_read(storage: &Storage, names: &BTreeSet<OsString>) {
    for name in names {
        storage.put_bytes([OsStr::new("odd/"), name].concat_path(), name.as_bytes());
    }
    storage.put_bytes("odd names/é ü/%41/file", b"below odd directories");
    let sandbox = Sandbox::new(storage);
    let mount = sandbox.mount(storage).start();
    assert_eq!(&listed(&mount, "odd"), names);
    for name in names {
        assert_eq!(
            mount.read([OsStr::new("odd/"), name].concat_path()),
            name.as_bytes(),
            "{name:?}"
        );
    }
    assert_eq!(
        mount.read("odd names/é ü/%41/file"),
        b"below odd directories"
    );
}

trait ConcatPath {
    fn concat_path(&self) -> OsString;
}

impl ConcatPath for [&OsStr; 2] {
    fn concat_path(&self) -> OsString {
        OsString::from_vec([self[0].as_bytes(), self[1].as_bytes()].concat())
    }
}

#[test]
fn local_names_may_hold_every_byte_also_those_that_are_not_text() {
    let mut names = odd_names(1..=255);
    names.insert(OsString::from_vec(vec![0xff, 0xfe]));
    every_name_is_listed_and_read(&Storage::local(), &names);
}

#[test]
fn s3_names_may_hold_every_byte_that_an_answer_in_xml_can_carry() {
    let bytes = [b'\t', b'\n', b'\r'].into_iter().chain(0x20..0x7f);
    every_name_is_listed_and_read(&Storage::s3(), &odd_names(bytes));
}

#[test]
fn a_name_that_is_not_there_is_not_found_and_asked_for_once() {
    let storage = Storage::s3();
    storage.put("dir/there", 1, 10);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    for name in ["absent", "dir/absent", "no/such/dir"] {
        assert_eq!(
            fs::metadata(mount.path(name)).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    let asked = storage.requests();
    for name in ["absent", "dir/absent", "dir/another"] {
        assert_eq!(
            fs::metadata(mount.path(name)).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    assert_eq!(
        storage.requests(),
        asked,
        "a fresh listing answers for absent names too"
    );
    let error = fs::read(mount.path("dir/there/below")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory);
}

#[test]
fn a_directory_of_100_000_entries_is_listed_whole_and_each_entry_is_there() {
    let storage = Storage::local();
    fs::create_dir(storage.root().join("wide")).unwrap();
    for index in 0..100_000 {
        fs::write(storage.root().join(format!("wide/{index:06}")), []).unwrap();
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let names = listed(&mount, "wide");
    assert_eq!(names.len(), 100_000);
    assert_eq!(names.first().unwrap(), "000000");
    assert_eq!(names.last().unwrap(), "099999");
    for index in (0..100_000).step_by(997) {
        assert_eq!(
            fs::metadata(mount.path(format!("wide/{index:06}")))
                .unwrap()
                .len(),
            0
        );
    }
}

#[test]
fn a_listing_of_many_pages_is_whole_and_spares_a_request_for_each_name() {
    let storage = Storage::s3();
    fs::create_dir(storage.root().join("wide")).unwrap();
    for index in 0..5_500 {
        storage.put_bytes(format!("wide/{index:05}"), b"x");
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let before = storage.requests();
    assert_eq!(listed(&mount, "wide").len(), 5_500);
    for index in 0..5_500 {
        assert_eq!(
            fs::metadata(mount.path(format!("wide/{index:05}")))
                .unwrap()
                .len(),
            1
        );
    }
    let asked = storage.requests() - before;
    assert!(
        asked <= 10,
        "6 pages of 1,000 names and their directory, not {asked} requests"
    );
}

#[test]
fn inode_numbers_stay_the_same_over_a_restart() {
    for storage in Storage::each() {
        storage.put("dir/file", 1, 10);
        let sandbox = Sandbox::new(&storage);
        let number = |mount: &Mount<'_>| fs::metadata(mount.path("dir/file")).unwrap().ino();
        let mount = sandbox.mount(&storage).start();
        let before = number(&mount);
        mount.unmount();
        let mount = sandbox.mount(&storage).start();
        assert_eq!(number(&mount), before);
    }
}

#[test]
fn a_file_beside_the_buckets_of_an_account_is_refused_when_it_is_made() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).uri("s3://*");
    for mode in ["through", "back"] {
        let mount = mounting.clone().flag("--write-mode", mode).start();
        let in_bucket = format!("{BUCKET}/{mode}");
        fs::write(mount.path(&in_bucket), b"in a bucket").unwrap();
        for refused in [
            fs::write(mount.path("beside"), b"x"),
            fs::rename(mount.path(&in_bucket), mount.path("beside")),
            fs::create_dir(mount.path("bucket-to-be")),
        ] {
            let errno = refused.unwrap_err().raw_os_error();
            assert_eq!(errno, Some(Errno::OPNOTSUPP.raw_os_error()), "{mode}");
        }
        assert_eq!(mount.read(&in_bucket), b"in a bucket");
        mount.unmount();
        assert_eq!(fs::read(storage.root().join(mode)).unwrap(), b"in a bucket");
    }
}
