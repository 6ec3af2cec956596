// SPDX-License-Identifier: Apache-2.0
//! Ways to read a file, each with the right bytes; and every way to write, refused.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use testkit::data;
use testkit::sandbox::{Sandbox, drop_kernel_caches};
use testkit::storage::Storage;

#[test]
fn files_of_every_size_near_a_page_boundary_read_right() {
    for storage in Storage::each() {
        let page = 128 * 1024;
        let sizes = [
            0,
            1,
            4095,
            4096,
            4097,
            page - 1,
            page,
            page + 1,
            3 * page,
            (5 << 20) + 13,
        ];
        for size in sizes {
            storage.put(format!("{size}"), size as u64, size);
        }
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        for pass in ["cold", "warm"] {
            for size in sizes {
                let found = mount.read(size.to_string());
                assert_eq!(found.len(), size, "{pass}");
                assert_eq!(data::check(size as u64, 0, &found), Ok(()), "{pass} {size}");
            }
        }
    }
}

#[test]
fn a_file_of_100_gib_reads_at_its_head_middle_and_tail() {
    const SIZE: u64 = 100 << 30;
    let storage = Storage::local();
    let marks = [0, SIZE / 2 - 100, SIZE - 4096].map(|at| (at, data::bytes(at, 4096)));
    let parts: Vec<(u64, &[u8])> = marks.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
    storage.put_sparse("huge", SIZE, &parts);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).cache_size("256MiB").start();
    let file = File::open(mount.path("huge")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), SIZE);
    for (at, expected) in &marks {
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, *at).unwrap();
        assert_eq!(&found, expected, "at {at}");
    }
    let mut past = [0; 10];
    assert_eq!(
        file.read_at(&mut past, SIZE).unwrap(),
        0,
        "nothing lies past the end"
    );
    assert_eq!(
        file.read_at(&mut past, SIZE - 3).unwrap(),
        3,
        "a read stops at the end"
    );
    assert!(mount.status().number("/mounts/0/requests/bytes_read") < 64 << 20);
}

#[test]
fn sparse_reads_in_random_order_fetch_about_what_they_ask_for() {
    let storage = Storage::s3();
    let size = 64 << 20;
    storage.put("large", 9, size);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let file = File::open(mount.path("large")).unwrap();
    let mut found = vec![0; 16 * 1024];
    for index in 0..40 {
        let at = data::pick(4, index, size - found.len()) as u64;
        file.read_exact_at(&mut found, at).unwrap();
        assert_eq!(data::check(9, at, &found), Ok(()));
    }
    let fetched = mount.status().number("/mounts/0/requests/bytes_read");
    assert!(
        fetched <= 32 << 20,
        "40 reads of 16 KiB fetched {fetched} bytes"
    );
}

#[test]
fn reads_past_the_kernels_page_cache_are_right() {
    for storage in Storage::each() {
        let content = storage.put("direct", 5, (3 << 20) + 777);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        for pass in ["cold", "warm"] {
            let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
            let open = OpenOptions::new()
                .read(true)
                .custom_flags(flags)
                .open(mount.path("direct"));
            let file = open.unwrap();
            // The kernel wants buffers at a multiple of the sector size.
            let mut buffer = vec![0; (1 << 20) + 4096];
            let start = buffer.as_ptr().align_offset(4096);
            let mut at = 0;
            loop {
                let count = file
                    .read_at(&mut buffer[start..start + (1 << 20)], at as u64)
                    .unwrap();
                if count == 0 {
                    break;
                }
                assert_eq!(
                    buffer[start..start + count],
                    content[at..at + count],
                    "{pass} {at}"
                );
                at += count;
            }
            assert_eq!(at, content.len(), "{pass}");
        }
    }
}

#[test]
fn a_mapping_of_a_file_has_the_right_bytes_and_outlives_its_descriptor() {
    for storage in Storage::each() {
        storage.put("mapped", 6, (9 << 20) + 5);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        for pass in ["cold", "warm"] {
            let sums = [mount.point(), storage.root()].map(|dir| mapped_sum(&dir.join("mapped")));
            assert_eq!(sums[0], sums[1], "{pass}");
        }
    }
}

/// Hashes a file through a mapping, from its end to its start, after its descriptor is closed.
fn mapped_sum(path: &Path) -> String {
    let script = "import hashlib, mmap, sys\n\
        with open(sys.argv[1], 'rb') as f: m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)\n\
        h = hashlib.sha256()\n\
        for at in range(len(m) // 65536, -1, -1): h.update(m[at * 65536:(at + 1) * 65536])\n\
        print(h.hexdigest())";
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn many_readers_of_one_cold_file_share_its_requests() {
    let storage = Storage::s3();
    let size = 32 << 20;
    storage.put("shared", 8, size);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let path = mount.path("shared");
    std::thread::scope(|scope| {
        for reader in 0..16 {
            let path = &path;
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                let mut found = vec![0; 256 * 1024];
                let chunks = size / found.len();
                for index in 0..chunks {
                    // Half of them begin in the middle.
                    let at = ((index + reader % 2 * chunks / 2) % chunks * found.len()) as u64;
                    file.read_exact_at(&mut found, at).unwrap();
                    assert_eq!(data::check(8, at, &found), Ok(()));
                }
            });
        }
    });
    let fetched = mount.status().number("/mounts/0/requests/bytes_read");
    assert!(
        fetched <= size as u64 * 5 / 4,
        "16 readers of {size} bytes fetched {fetched}"
    );
}

#[test]
fn one_handle_serves_interleaved_streams() {
    let storage = Storage::s3();
    let size = 24 << 20;
    storage.put("streams", 10, size);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let file = File::open(mount.path("streams")).unwrap();
    let mut found = vec![0; 128 * 1024];
    for index in 0..64 {
        for stream in 0..3 {
            let at = (stream * (8 << 20) + index * found.len()) as u64;
            file.read_exact_at(&mut found, at).unwrap();
            assert_eq!(data::check(10, at, &found), Ok(()));
        }
    }
}

#[test]
fn every_write_is_answered_with_read_only_file_system() {
    for storage in Storage::each() {
        storage.put("dir/file", 1, 1000);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).switch("--read-only").start();
        let (file, new) = (mount.path("dir/file"), mount.path("dir/new"));
        let mode = fs::Permissions::from_mode(0o600);
        let name = new.to_str().unwrap().to_owned();
        let fifo = || {
            Command::new("mkfifo")
                .arg(&name)
                .output()
                .map(|out| out.status.success())
        };
        let attempts: [(&str, std::io::Result<()>); 13] = [
            ("create", File::create(&new).map(drop)),
            (
                "open for writing",
                OpenOptions::new().write(true).open(&file).map(drop),
            ),
            (
                "append",
                OpenOptions::new().append(true).open(&file).map(drop),
            ),
            ("truncate", rustix_truncate(&file)),
            ("mkdir", fs::create_dir(&new)),
            ("rmdir", fs::remove_dir(mount.path("dir"))),
            ("unlink", fs::remove_file(&file)),
            ("rename", fs::rename(&file, &new)),
            ("link", fs::hard_link(&file, &new)),
            ("symlink", symlink("file", &new)),
            ("chmod", fs::set_permissions(&file, mode)),
            ("chown", std::os::unix::fs::chown(&file, Some(7), Some(7))),
            ("setxattr", set_attribute(&file)),
        ];
        for (what, answer) in attempts {
            let code = answer.expect_err(what).raw_os_error();
            assert_eq!(code, Some(Errno::ROFS.raw_os_error()), "{what}");
        }
        assert!(!fifo().unwrap(), "mkfifo");
        assert_eq!(fs::read_dir(mount.path("dir")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(storage.root().join("dir")).unwrap().count(), 1);
        assert_eq!(data::check(1, 0, &mount.read("dir/file")), Ok(()));
    }
}

fn rustix_truncate(path: &Path) -> std::io::Result<()> {
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .map(drop)
}

fn set_attribute(path: &Path) -> std::io::Result<()> {
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::setxattr(path, "user.test", b"value", flags)?)
}

#[test]
fn extended_attributes_tell_the_etag_and_whether_a_file_is_cached() {
    let storage = Storage::s3();
    storage.put("file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let attribute = |name: &str| {
        let mut value = vec![0; 1000];
        let len = rustix::fs::getxattr(mount.path("file"), name, &mut value[..]).unwrap();
        String::from_utf8(value[..len].to_vec()).unwrap()
    };
    let mut etag = [0; 100];
    let len =
        rustix::fs::getxattr(storage.root().join("file"), "user.etag", &mut etag[..]).unwrap();
    let etag = String::from_utf8(etag[..len].to_vec()).unwrap();
    assert_eq!(
        attribute("user.forebay.etag").trim_matches('"'),
        etag.trim_matches('"')
    );
    let cold = attribute("user.forebay.cached");
    mount.read("file");
    testkit::wait::until("the file is cached", || {
        attribute("user.forebay.cached") != cold
    });
}

#[test]
fn a_short_buffer_and_a_seek_do_what_they_do_elsewhere() {
    use std::io::{Seek, SeekFrom};
    let storage = Storage::s3();
    let content = storage.put("file", 11, 500_000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let mut file = File::open(mount.path("file")).unwrap();
    file.seek(SeekFrom::End(-7)).unwrap();
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, content[content.len() - 7..]);
    file.seek(SeekFrom::Start(131_070)).unwrap();
    let mut four = [0; 4];
    file.read_exact(&mut four).unwrap();
    assert_eq!(
        four,
        content[131_070..131_074],
        "a read over a page boundary"
    );
}

#[test]
fn a_kernel_that_is_spared_its_opens_reads_the_same_bytes() {
    for storage in Storage::each() {
        let sizes = [0, 1, 4096, 110_000, (5 << 20) + 13, 20 << 20];
        for size in sizes {
            storage.put(format!("{size}"), size as u64, size);
        }
        // More than stay open.
        let many = 5_000;
        for index in 0..many {
            storage.put_bytes(format!("many/{index}"), index.to_string().as_bytes());
        }
        let sandbox = Sandbox::new(&storage);
        let mounting = sandbox.mount(&storage).switch("--spare-opens");
        let mounting = mounting.flag("--freshness", "immutable");
        let refused = mounting.clone().run();
        let why = &refused.stderr;
        assert!(
            !refused.status.success() && why.contains("add --read-only"),
            "{why}"
        );
        let mount = mounting.switch("--read-only").start();
        for pass in ["cold", "warm"] {
            for size in sizes {
                let found = mount.read(size.to_string());
                assert_eq!(data::check(size as u64, 0, &found), Ok(()), "{pass} {size}");
                assert_eq!(found.len(), size, "{pass}");
            }
            for index in 0..many {
                let found = mount.read(format!("many/{index}"));
                assert_eq!(found, index.to_string().as_bytes(), "{pass}");
            }
            drop_kernel_caches();
        }
        let file = File::open(mount.path("20971520")).unwrap();
        let mut found = vec![0; 5000];
        file.read_exact_at(&mut found, 9 << 20).unwrap();
        assert_eq!(data::check(20 << 20, 9 << 20, &found), Ok(()));
        assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(7)).unwrap(), 7);
        let end = rustix::fs::seek(&file, SeekFrom::Hole(7)).unwrap();
        assert_eq!(end, 20 << 20);
        let written = OpenOptions::new().write(true).open(mount.path("1"));
        let errno = written.unwrap_err().raw_os_error();
        assert_eq!(errno, Some(Errno::ROFS.raw_os_error()));
        storage.switch_off();
        drop_kernel_caches();
        assert_eq!(mount.read("4096").len(), 4096);
        storage.switch_on();
        drop(file);
        mount.unmount();
    }
}
