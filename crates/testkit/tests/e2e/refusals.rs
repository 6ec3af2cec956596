// SPDX-License-Identifier: Apache-2.0
//! What cannot work is refused: one message with cause and fix, exit code not 0, nothing left.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::sandbox::{Finished, Mount, Sandbox};
use testkit::storage::Storage;
use testkit::wait;

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
    let answer = sandbox.run(&["umount".as_ref(), missing.as_os_str()]);
    assert!(!answer.stderr.contains("mkdir"), "{answer:?}");
    refused(&sandbox, answer, &["missing", "does not exist"]);
}

#[test]
fn a_mount_a_source_and_a_cache_inside_each_other() {
    let storage = Storage::local();
    storage.put("sub/file", 1, 10);
    let sandbox = Sandbox::new(&storage);
    let (root, point) = (storage.root(), sandbox.point());
    let mount = || sandbox.mount(&storage);
    for (mounting, word) in [
        (mount().at(root.join("sub")), "contain itself"),
        (mount().at(root), "would hide it"),
        (mount().cache_dir(root.join("cache")), "show up in the data"),
        (mount().cache_dir(&point), "inside the mount point"),
        (
            mount().cache_dir(point.join("x/y")),
            "inside the mount point",
        ),
        (mount().cache_dir(root.parent().unwrap()), "inside"),
        (mount().at("/"), "give an empty directory"),
    ] {
        let answer = mounting.run();
        assert_eq!(answer.status.code(), Some(2), "{answer:?}");
        refused(&sandbox, answer, &[word]);
    }
    assert_eq!(fs::read_dir(root).unwrap().count(), 1);
    assert_eq!(fs::read_dir(point).unwrap().count(), 0);
    let mounted = mount().start();
    let add = |uri: &Path| {
        let words = [
            "mounts".as_ref(),
            "add".as_ref(),
            "/x".as_ref(),
            uri.as_os_str(),
        ];
        sandbox.run(&words).refusal()
    };
    assert!(add(mounted.point()).contains("would hide it"));
    assert!(add(sandbox.dir()).contains("contain itself"));
    mounted.unmount();
}

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = || sandbox.mount(&storage);
    for mounting in [
        mount().uri("gopher://host/path"),
        mount().uri(""),
        mount().uri("my-bucket"),
        mount().cache_size("1MiB"),
        mount().flag("--memory", "1MiB"),
        mount().flag("--option", "regions=here"),
        mount().flag("--log-level", "loud"),
        mount().flag("--file-mode", "7777"),
        mount().cache_dir("/etc/passwd"),
    ] {
        let answer = mounting.run();
        assert_eq!(answer.status.code(), Some(2), "{answer:?}");
        answer.refusal();
    }
    let missing = mount().at(sandbox.dir().join("missing")).run();
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    let hint = mount().uri("my-bucket").run().refusal();
    assert!(hint.contains("s3://my-bucket"), "{hint}");
    sandbox.assert_nothing_left();
}

#[test]
fn a_prefix_with_nothing_below_it_is_told_and_an_object_is_refused() {
    let storage = Storage::s3();
    storage.put("train/a.tar", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let at = |prefix: &str| format!("{}/{prefix}", storage.uri().trim_end_matches('/'));
    let object = sandbox.mount(&storage).uri(&at("train/a.tar")).run();
    assert_eq!(object.status.code(), Some(2), "{object:?}");
    refused(&sandbox, object, &["is an object", &at("train/")]);
    let said = sandbox.mount(&storage).uri(&at("trian")).run().success();
    assert!(said.contains("nothing is below"), "{said}");
    Mount::of(&sandbox, sandbox.point()).unmount();
    let said = sandbox.mount(&storage).uri(&at("train")).run().success();
    assert!(!said.contains("nothing is below"), "{said}");
    let mount = Mount::of(&sandbox, sandbox.point());
    let add = |at_in_tree: &str, uri: &str| {
        let flags = [
            "--endpoint",
            storage.relay().endpoint(),
            "--path-style",
            "yes",
        ];
        let words = ["mounts", "add", at_in_tree, uri].into_iter().chain(flags);
        sandbox.run(&words.collect::<Vec<_>>())
    };
    let said = add("/x", &at("nowhere")).success();
    assert!(said.contains("nothing is below"), "{said}");
    assert!(
        add("/y", &at("train/a.tar"))
            .refusal()
            .contains("is an object")
    );
    mount.unmount();
}

#[test]
fn a_cache_that_its_disk_cannot_hold_is_told_at_the_start_and_when_it_is_full() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let disk = SmallDisk::new(&sandbox, "200m", &["cache"]);
    let mounting = sandbox.mount(&storage).cache_dir(disk.path("cache"));
    let said = mounting.run().success();
    assert!(
        said.contains("may take 1 GiB") && said.contains("free"),
        "{said}"
    );
    let mount = Mount::of(&sandbox, sandbox.point());
    assert!(mount.status().number("/cache/free_bytes") < 200 << 20);
    let filler = disk.fill();
    assert_eq!(mount.status().number("/cache/free_bytes"), 0);
    wait::until("the log says so", || {
        let log = fs::read_to_string(sandbox.log()).unwrap();
        log.matches("is full: new data").count() == 1
    });
    let faults = mount.status().0["last_errors"].to_string();
    assert!(faults.contains("is full: new data"), "{faults}");
    fs::remove_file(filler).unwrap();
    mount.unmount();
}

#[test]
fn a_full_disk_without_a_size_for_the_cache_is_named() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let disk = SmallDisk::new(&sandbox, "20m", &["cache"]);
    let mut command = sandbox.command();
    command
        .args([
            "mount".as_ref(),
            storage.root().as_os_str(),
            sandbox.point().as_os_str(),
        ])
        .arg("--cache-dir")
        .arg(disk.path("cache"));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("disk is full") && said.contains("64 MiB"),
        "{said}"
    );
    drop(disk);
    sandbox.assert_nothing_left();
}

#[test]
fn unmounts_at_the_same_time_all_succeed() {
    let storage = Storage::local();
    storage.put("file", 1, 10);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let open = fs::File::open(mount.path("file")).unwrap();
    let unmount = || {
        let mut command = sandbox.command();
        command.arg("umount").arg(sandbox.point());
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut waiting = [unmount(), unmount(), unmount()];
    let outputs = waiting.iter_mut().map(|one| {
        let mut output = BufReader::new(one.stderr.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert!(line.contains("waits up to"), "{line}");
        output
    });
    let outputs: Vec<_> = outputs.collect();
    drop(open);
    for (mut one, mut output) in waiting.into_iter().zip(outputs) {
        let status = one.wait().unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert!(status.success(), "{rest}");
    }
    sandbox.assert_nothing_left();
}

#[test]
fn an_unmount_that_waited_in_vain_says_for_what_and_once() {
    let storage = Storage::local();
    storage.put("file", 1, 10);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let open = fs::File::open(mount.path("file")).unwrap();
    let words = ["umount", "--timeout", "1s", mount.point().to_str().unwrap()];
    let answer = sandbox.run(&words);
    assert_eq!(answer.status.code(), Some(1));
    let message = answer.refusal();
    assert!(
        message.contains("waited 1s") && message.contains("--force"),
        "{message}"
    );
    assert_eq!(message.matches("--force").count(), 1, "{message}");
    drop(open);
    mount.unmount();
}

#[test]
fn a_daemon_is_found_where_the_environment_names_another_run_directory() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let elsewhere = |verb: &str| {
        let mut command = sandbox.command();
        command.env_remove("FOREBAY_RUN_DIR");
        command.arg(verb).arg(sandbox.point()).output().unwrap()
    };
    let shown = elsewhere("status");
    assert!(shown.status.success(), "{shown:?}");
    let pid = mount.pid();
    assert!(elsewhere("umount").status.success());
    assert!(
        !sandbox.processes().contains(&pid),
        "unmounted, but it still runs"
    );
    sandbox.assert_nothing_left();
}

#[test]
fn answers_that_cannot_be_written_fail_in_one_line() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    for words in [&["config", "example"][..], &["--help"], &["--version"]] {
        let full = || fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = sandbox.command();
        let output = command.args(words).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        let mut command = sandbox.command();
        let status = command.args(words).stdout(full()).stderr(full()).status();
        assert_eq!(status.unwrap().code(), Some(1), "{words:?}: nobody to tell");
    }
}

#[test]
fn switches_in_the_environment_take_numbers_and_name_their_variable() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage).with_variable("FOREBAY_ALLOW_OTHER", "0");
    sandbox.mount(&storage).start().unmount();
    let sandbox = Sandbox::new(&storage).with_variable("FOREBAY_ALLOW_OTHER", "perhaps");
    let answer = sandbox.mount(&storage).run();
    assert_eq!(answer.status.code(), Some(2));
    refused(&sandbox, answer, &["perhaps", "FOREBAY_ALLOW_OTHER"]);
}

#[test]
fn maps_of_owners_that_say_nothing_or_two_things_are_refused_with_the_fix() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let point = sandbox.point().display().to_string();
    for (uri, map, words) in [
        (storage.uri(), "1000=0", "uid:1000=0"),
        (storage.uri(), "uid:1-9=0,uid:5=3", "overlap"),
        (storage.uri(), "uid:1000=root", "not an id"),
        (storage.uri(), "uid:alice=7", "as numbers, not names"),
        ("s3://data".to_owned(), "uid:1=7", "has no owners to map"),
    ] {
        let finished = sandbox.run(&["mount", &uri, &point, "--idmap", map]);
        assert_eq!(finished.status.code(), Some(2), "{map}");
        let said = finished.refusal();
        assert!(said.contains(words), "{map}: {said}");
    }
    sandbox.assert_nothing_left();
}
