// SPDX-License-Identifier: Apache-2.0
//! What cannot work is refused: one message with cause and fix, exit code not 0, nothing left.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::sandbox::{Finished, Sandbox};
use testkit::storage::Storage;

/// Checks that a refusal names each of `words`, and that nothing is left behind.
#[track_caller]
fn refused(sandbox: &Sandbox, answer: Finished, words: &[&str]) {
    let message = answer.refusal();
    for word in words {
        assert!(
            message.contains(&word.to_lowercase()),
            "no '{word}' in: {message}"
        );
    }
    sandbox.assert_nothing_left();
}

/// A small file system in memory, mounted in a sandbox; unmounted with it.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn new(sandbox: &Sandbox, size: &str, dirs: &[&str]) -> Self {
        let point = sandbox.dir().join("disk");
        fs::create_dir(&point).unwrap();
        let disk = SmallDisk(point);
        disk.mount(&format!("size={size}"));
        for dir in dirs {
            fs::create_dir(disk.path(dir)).unwrap();
        }
        disk
    }

    fn mount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&self.0);
        assert!(
            mount.status().unwrap().success(),
            "mounting a tmpfs needs root"
        );
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn make_read_only(&self) {
        self.mount("remount,ro");
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path("filler");
        let mut file = fs::File::create(&path).unwrap();
        let full = loop {
            if let Err(error) = file.write_all(&[7; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The sandbox detaches what is left, should something still be in use here.
        drop(Command::new("umount").arg(&self.0).output());
    }
}

/// Answers every request with one S3 error, as a storage does whose clients are at fault.
fn answering(status: &'static str, code: &'static str) -> String {
    fn serve(stream: &mut TcpStream, status: &str, code: &str) -> std::io::Result<()> {
        let mut request = vec![0; 16 * 1024];
        let _ = stream.read(&mut request)?;
        let body = format!(
            "<Error><Code>{code}</Code><Message>The storage says {code}.</Message></Error>"
        );
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that hangs up early is its own affair.
            drop(stream.and_then(|mut stream| serve(&mut stream, status, code)));
        }
    });
    endpoint
}

#[test]
fn a_bucket_that_is_not_there() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    refused(
        &sandbox,
        sandbox.mount(&storage).uri("s3://no-such-bucket").run(),
        &["no-such-bucket"],
    );
}

#[test]
fn a_secret_key_that_is_wrong() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage).with_variable("AWS_SECRET_ACCESS_KEY", "wrong-secret-key");
    let answer = sandbox.mount(&storage).run();
    assert!(
        !answer.stderr.contains("wrong-secret-key"),
        "the message shows the secret"
    );
    refused(&sandbox, answer, &["403", "check the secret access key"]);
}

#[test]
fn an_access_key_that_nobody_knows() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage).with_variable("AWS_ACCESS_KEY_ID", "nobody");
    refused(&sandbox, sandbox.mount(&storage).run(), &["access key"]);
}

#[test]
fn a_token_that_has_expired() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage).with_variable("AWS_SESSION_TOKEN", "old");
    let endpoint = answering("400 Bad Request", "ExpiredToken");
    let answer = sandbox.mount(&storage).flag("--endpoint", &endpoint).run();
    refused(
        &sandbox,
        answer,
        &["session token has expired", "get new credentials"],
    );
}

#[test]
fn a_bucket_that_these_credentials_may_not_list() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let endpoint = answering("403 Forbidden", "AccessDenied");
    let answer = sandbox.mount(&storage).flag("--endpoint", &endpoint).run();
    refused(&sandbox, answer, &["data", "denied"]);
}

#[test]
fn an_endpoint_where_nobody_listens() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{free}");
    let answer = sandbox
        .mount(&storage)
        .flag("--endpoint", &endpoint)
        .flag("--deadline", "5s")
        .run();
    refused(
        &sandbox,
        answer,
        &[&free.to_string(), "refused", "is right and up"],
    );
}

#[test]
fn an_endpoint_that_never_answers() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    storage.relay().black_hole();
    refused(
        &sandbox,
        sandbox.mount(&storage).flag("--deadline", "3s").run(),
        &["no answer", storage.relay().endpoint()],
    );
}

#[test]
fn an_endpoint_that_is_no_address() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let answer = sandbox
        .mount(&storage)
        .flag("--endpoint", "not an address")
        .run();
    refused(&sandbox, answer, &["the endpoint is not a url"]);
}

#[test]
fn a_local_directory_that_is_missing() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let missing = sandbox.dir().join("missing");
    let answer = sandbox.mount(&storage).uri(missing.to_str().unwrap()).run();
    refused(&sandbox, answer, &["missing"]);
}

#[test]
fn a_mount_point_that_is_missing() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let missing = sandbox.dir().join("missing");
    refused(
        &sandbox,
        sandbox.mount(&storage).at(&missing).run(),
        &["missing", "mkdir"],
    );
    assert!(!missing.try_exists().unwrap(), "it was made");
}

#[test]
fn a_mount_point_that_is_not_empty() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    fs::write(sandbox.point().join("file"), "mine").unwrap();
    refused(&sandbox, sandbox.mount(&storage).run(), &["not empty"]);
    assert_eq!(
        fs::read_to_string(sandbox.point().join("file")).unwrap(),
        "mine"
    );
}

#[test]
fn a_mount_point_that_is_a_file() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let file = sandbox.dir().join("plain");
    fs::write(&file, "mine").unwrap();
    refused(
        &sandbox,
        sandbox.mount(&storage).at(&file).run(),
        &["plain", "directory"],
    );
}

#[test]
fn a_mount_point_that_is_taken_keeps_its_mount() {
    let storage = Storage::local();
    storage.put("file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let again = sandbox
        .mount(&storage)
        .cache_dir(sandbox.dir().join("other"))
        .run()
        .refusal();
    assert!(
        again.contains("mounted") && again.contains("umount"),
        "{again}"
    );
    assert_eq!(mount.read("file"), testkit::data::bytes(1, 1000));
    assert_eq!(sandbox.processes(), [mount.pid()]);
    mount.unmount();
    sandbox.assert_nothing_left();
}

#[test]
fn a_cache_directory_that_another_daemon_uses_stays_with_it() {
    let storage = Storage::local();
    storage.put("file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let second = sandbox.dir().join("second");
    fs::create_dir(&second).unwrap();
    let answer = sandbox.mount(&storage).at(&second).run().refusal();
    let cache = sandbox.cache_dir().display().to_string().to_lowercase();
    assert!(
        answer.contains(&cache) && answer.contains("is using it"),
        "{answer}"
    );
    assert_eq!(sandbox.processes(), [mount.pid()]);
    assert_eq!(sandbox.mounts(), [sandbox.point()]);
    assert_eq!(mount.read("file"), testkit::data::bytes(1, 1000));
}

#[test]
fn a_cache_directory_that_cannot_be_written() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let disk = SmallDisk::new(&sandbox, "1m", &["cache"]);
    disk.make_read_only();
    let answer = sandbox.mount(&storage).cache_dir(disk.path("cache")).run();
    drop(disk);
    refused(
        &sandbox,
        answer,
        &["disk/cache", "cannot be written", "use another"],
    );
}

#[test]
fn a_cache_directory_on_a_full_disk() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let disk = SmallDisk::new(&sandbox, "80m", &["cache"]);
    disk.fill();
    let cache = disk.path("cache");
    let answer = sandbox
        .mount(&storage)
        .cache_dir(cache)
        .cache_size("64MiB")
        .run();
    drop(disk);
    refused(
        &sandbox,
        answer,
        &["disk/cache", "no space left", "free some space"],
    );
}

#[test]
fn a_cache_that_is_too_small() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    refused(
        &sandbox,
        sandbox.mount(&storage).cache_size("1MiB").run(),
        &["64", "cache"],
    );
}

#[test]
fn sizes_times_and_words_that_make_no_sense() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    for (flag, value) in [
        ("--cache-size", "12XB"),
        ("--cache-size", "1.2.3GiB"),
        ("--deadline", "soon"),
        ("--freshness", "sometimes"),
        ("--memory", "1MiB"),
        ("--option", "novalue"),
    ] {
        let mounting = match flag {
            "--cache-size" => sandbox.mount(&storage).cache_size(value),
            _ => sandbox.mount(&storage).flag(flag, value),
        };
        let word = if flag == "--memory" { "64mib" } else { value };
        refused(&sandbox, mounting.run(), &[word]);
    }
}

#[test]
fn locations_that_make_no_sense() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    for (uri, word) in [
        ("gopher://host/path", "s3"),
        ("s3://", "bucket"),
        ("s3://UPPER_case!/x", "UPPER_case!"),
        ("s3://key:secret@bucket", "credentials"),
        ("", "uri"),
    ] {
        refused(&sandbox, sandbox.mount(&storage).uri(uri).run(), &[word]);
    }
}

#[test]
fn options_that_nobody_knows_name_the_nearest() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let answer = sandbox
        .mount(&storage)
        .flag("--option", "regions=here")
        .run();
    refused(&sandbox, answer, &["regions", "region"]);
    let answer = sandbox.mount(&storage).flag("--cache-sizes", "1GiB").run();
    refused(&sandbox, answer, &["--cache-sizes", "--cache-size"]);
}

#[test]
fn secrets_on_the_command_line() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let answer = sandbox
        .mount(&storage)
        .flag("--option", "secret_access_key=hush")
        .run();
    assert!(!answer.stderr.contains("hush"));
    refused(&sandbox, answer, &["AWS_SECRET_ACCESS_KEY"]);
}

#[test]
fn an_unmount_of_what_is_not_mounted() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let answer = sandbox.run(&["umount".as_ref(), sandbox.point().as_os_str()]);
    refused(&sandbox, answer, &["nothing is mounted", "forebay status"]);
    let missing: &Path = &sandbox.dir().join("missing");
    refused(
        &sandbox,
        sandbox.run(&["umount".as_ref(), missing.as_os_str()]),
        &["missing"],
    );
}
