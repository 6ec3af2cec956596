// SPDX-License-Identifier: Apache-2.0
//! Programs see the bytes and the names that the storage has.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::rig::{Rig, bytes, drain};

#[test]
fn files_of_all_sizes_have_their_bytes() {
    let page = 128 * 1024;
    let whole = 4 << 20;
    let sizes = [
        0,
        1,
        4_095,
        4_096,
        4_097,
        page - 1,
        page,
        page + 1,
        1 << 20,
        whole - 1,
        whole,
        whole + 1,
        10_000_000,
    ];
    let rig = Rig::new(|dir| {
        for size in sizes {
            std::fs::write(dir.join(size.to_string()), bytes(size)).unwrap();
        }
    });
    for round in 0..2 {
        for size in sizes {
            let path = rig.path(&size.to_string());
            assert_eq!(std::fs::metadata(&path).unwrap().len(), size as u64);
            assert!(
                std::fs::read(&path).unwrap() == bytes(size),
                "{size} bytes, round {round}"
            );
        }
    }
}

#[test]
fn reads_at_odd_places_and_past_the_end_are_as_on_a_disk() {
    let size = 3_000_001;
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), bytes(size)).unwrap());
    let file = rig.open("file");
    let expected = bytes(size);
    let mut buffer = vec![0; 70_000];
    for offset in [
        2_999_999, 0, 131_071, 1_048_575, 4_095, 2_930_001, 2_930_002,
    ] {
        let read = file.read_at(&mut buffer, offset as u64).unwrap();
        assert_eq!(read, buffer.len().min(size - offset));
        assert!(
            buffer[..read] == expected[offset..offset + read],
            "at {offset}"
        );
    }
    assert_eq!(file.read_at(&mut buffer, size as u64).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
}

#[test]
fn data_and_holes_are_found_as_in_a_file_without_holes() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), bytes(10_000)).unwrap());
    let file = rig.open("file");
    let seek = |to| rustix::fs::seek(&file, to);
    assert_eq!(seek(rustix::fs::SeekFrom::Data(100)).unwrap(), 100);
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(100)).unwrap(), 10_000);
    assert_eq!(
        seek(rustix::fs::SeekFrom::Data(10_000)),
        Err(rustix::io::Errno::NXIO)
    );
}

#[test]
fn a_directory_of_ten_thousand_is_listed_whole_and_can_be_sought() {
    let rig = Rig::new(|dir| {
        for index in 0..10_000 {
            std::fs::write(dir.join(format!("file-{index:05}")), b"x").unwrap();
        }
    });
    let mut names: Vec<String> = std::fs::read_dir(rig.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected: Vec<String> = (0..10_000)
        .map(|index| format!("file-{index:05}"))
        .collect();
    assert_eq!(names, expected);

    let open = std::fs::File::open(rig.root()).unwrap();
    let mut dir = rustix::fs::Dir::read_from(&open).unwrap();
    let mut seen = Vec::new();
    while let Some(entry) = dir.read() {
        let entry = entry.unwrap();
        seen.push((entry.offset(), entry.file_name().to_owned()));
    }
    assert!(seen.len() >= 10_000);
    for index in [9_990, 5, 5_000, 1, 777] {
        dir.seek(seen[index].0).unwrap();
        let next = dir.read().unwrap().unwrap();
        assert_eq!(
            next.file_name(),
            seen[index + 1].1.as_c_str(),
            "after entry {index}"
        );
    }
}

#[test]
fn listings_have_inode_numbers_that_stat_agrees_with() {
    let rig = Rig::new(|dir| {
        std::fs::create_dir(dir.join("dir")).unwrap();
        std::fs::write(dir.join("dir/file"), b"12345").unwrap();
        std::fs::write(dir.join("file"), b"123").unwrap();
    });
    for entry in std::fs::read_dir(rig.root()).unwrap() {
        let entry = entry.unwrap();
        let stat = std::fs::symlink_metadata(entry.path()).unwrap();
        assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), stat.ino());
        assert_eq!(entry.file_type().unwrap(), stat.file_type());
    }
    assert_eq!(std::fs::metadata(rig.path("dir/file")).unwrap().len(), 5);
    assert!(std::fs::metadata(rig.path("dir")).unwrap().is_dir());
    let error = std::fs::metadata(rig.path("dir/absent")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    let error = std::fs::read_dir(rig.path("file")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
}

#[test]
fn names_of_any_bytes_and_links_are_shown() {
    let names = [
        &b"\xff\xfe"[..],
        b" ",
        b"a\nb",
        "\u{e9}t\u{e9}".as_bytes(),
        b"...",
        b"%2F",
    ];
    let rig = Rig::new(|dir| {
        for name in names {
            std::fs::write(dir.join(OsString::from_vec(name.to_vec())), name).unwrap();
        }
        std::os::unix::fs::symlink("%2F", dir.join("link")).unwrap();
    });
    for name in names {
        let path = rig.root().join(OsString::from_vec(name.to_vec()));
        assert_eq!(
            std::fs::read(path).unwrap(),
            name,
            "{}",
            name.escape_ascii()
        );
    }
    assert_eq!(
        std::fs::read_link(rig.path("link")).unwrap().to_str(),
        Some("%2F")
    );
    assert_eq!(std::fs::read(rig.path("link")).unwrap(), b"%2F");
}

#[test]
fn extended_attributes_tell_their_size_first() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), b"x").unwrap());
    let path = rig.path("file");
    let mut names = [0u8; 4096];
    let len = rustix::fs::listxattr(&path, &mut names).unwrap();
    assert_eq!(len, 0, "no copy of the file takes ours along");
    let name = "user.forebay.version";
    let size = rustix::fs::getxattr_query(&path, name).unwrap();
    assert_eq!(size, 32, "a version is 128 bits in hexadecimal");
    let mut value = vec![0u8; size];
    assert_eq!(rustix::fs::getxattr(&path, name, &mut value).unwrap(), size);
    let short = rustix::fs::getxattr(&path, name, &mut value[..31]);
    assert_eq!(short.unwrap_err(), rustix::io::Errno::RANGE);
    let absent = rustix::fs::getxattr(&path, "user.other", &mut value);
    assert_eq!(absent.unwrap_err(), rustix::io::Errno::NODATA);
    let others = rustix::fs::getxattr(&path, "security.capability", &mut value);
    assert_eq!(others.unwrap_err(), rustix::io::Errno::OPNOTSUPP);
}

#[test]
fn an_open_file_can_be_read_by_many_threads_at_once() {
    let size = 6_000_000;
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), bytes(size)).unwrap());
    let file = rig.open("file");
    let expected = bytes(size);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (file, expected) = (&file, &expected);
            scope.spawn(move || {
                let mut buffer = vec![0; 100_000];
                for step in 0..60 {
                    let offset = (thread * 7 + step * 13) % 60 * 100_000;
                    let read = file.read_at(&mut buffer, offset as u64).unwrap();
                    assert!(read > 0 && buffer[..read] == expected[offset..offset + read]);
                }
            });
        }
    });
    assert!(drain(&file) == expected);
}

#[test]
fn an_open_file_stays_the_version_that_it_was() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), b"old").unwrap());
    let old = rig.open("file");
    rig.replace("file", b"newer");
    assert_eq!(drain(&old), b"old");
}

#[test]
fn a_version_that_is_gone_makes_the_kernel_look_the_name_up_again() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), b"old").unwrap());
    assert_eq!(std::fs::metadata(rig.path("file")).unwrap().len(), 3);
    rig.replace("file", b"newer");
    assert_eq!(
        std::fs::read(rig.path("file")).unwrap(),
        b"newer",
        "no ESTALE is seen"
    );
    assert_eq!(std::fs::metadata(rig.path("file")).unwrap().len(), 5);
}

#[test]
fn room_and_name_length_are_told() {
    let rig = Rig::new(|_| {});
    let stats = rustix::fs::statvfs(rig.root()).unwrap();
    assert!(stats.f_bavail > 0 && stats.f_bavail <= stats.f_blocks);
    assert_eq!(stats.f_namemax, 1024);
    assert!(stats.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}

#[test]
fn what_the_door_does_not_need_does_not_fail_programs() {
    let rig = Rig::new(|dir| std::fs::write(dir.join("file"), b"x").unwrap());
    let file = rig.open("file");
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    std::fs::File::open(rig.root()).unwrap().sync_all().unwrap();
    rustix::fs::access(rig.path("file"), rustix::fs::Access::READ_OK).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).unwrap();
    let terminal = rustix::termios::tcgetattr(&file).unwrap_err();
    assert_eq!(terminal, rustix::io::Errno::NOTTY);
}
