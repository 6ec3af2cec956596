// SPDX-License-Identifier: Apache-2.0
//! What the commands print, what `serve` builds from a file, and that secrets stay secret.

use std::fs;
use std::process::Stdio;

use testkit::data;
use testkit::sandbox::{Mount, Sandbox, drop_kernel_caches};
use testkit::storage::{BUCKET, Storage};
use testkit::wait;

#[test]
fn mount_prints_what_is_mounted_where_and_where_its_log_is() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let said = sandbox.mount(&storage).run().success();
        let place = sandbox.point().display().to_string();
        let log = sandbox.log().display().to_string();
        for word in [storage.uri().trim_start_matches("file://"), &place, &log] {
            assert!(said.contains(word), "no {word} in: {said}");
        }
        assert!(sandbox.log().try_exists().unwrap());
        Mount::of(&sandbox, sandbox.point()).unmount();
        sandbox.assert_nothing_left();
    }
}

#[test]
fn status_tells_scripts_and_people_about_every_mount() {
    let storage = Storage::s3();
    storage.put("file", 1, 200_000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    mount.read("file");
    wait::until("it is cached", || {
        mount.status().number("/cache/used_bytes") >= 200_000
    });
    let status = mount.status();
    assert_eq!(i32::try_from(status.number("/pid")).unwrap(), mount.pid());
    assert_eq!(status.number("/cache/capacity_bytes"), 1 << 30);
    assert!(status.number("/cache/free_bytes") < 1 << 30);
    assert!(status.number("/cache/objects") >= 1);
    assert_eq!(status.number("/mounts/0/requests/bytes_read"), 200_000);
    assert!(status.number("/mounts/0/requests/get") >= 1);
    assert!(status.number("/memory/used_bytes") > 0);
    status.number("/uptime_seconds");
    assert!(
        status.0["mounts"][0]["uri"]
            .as_str()
            .unwrap()
            .starts_with(&storage.uri())
    );
    assert_eq!(status.0["mounts"][0]["freshness"], "1m");
    assert_eq!(status.0["log"], sandbox.log().to_str().unwrap());
    assert_eq!(
        status.0["cache"]["dir"],
        sandbox.cache_dir().to_str().unwrap()
    );
    assert!(
        status.0["version"]
            .as_str()
            .unwrap()
            .starts_with(|c: char| c.is_ascii_digit())
    );
    assert!(status.0["cache"]["hit_ratio"].is_number());

    let table = sandbox.run(&["status"]).success();
    for word in [
        &storage.uri(),
        mount.point().to_str().unwrap(),
        &mount.pid().to_string(),
    ] {
        assert!(table.contains(word), "no {word} in:\n{table}");
    }
    mount.unmount();
    let nothing = sandbox.run(&["status"]).refusal();
    assert!(nothing.contains("forebay mount"), "{nothing}");
}

#[test]
fn status_counts_open_files_by_how_they_are_served() {
    let storage = Storage::local();
    storage.put("file", 1, 200_000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).switch("--no-passthrough").start();
    let file = fs::File::open(mount.path("file")).unwrap();
    assert_eq!(mount.status().number("/kernel/open_files/cached"), 1);
    assert_eq!(
        mount.status().0["kernel"]["passthrough"]["available"],
        false
    );
    drop(file);
    wait::until("it is closed", || {
        mount.status().number("/kernel/open_files/cached") == 0
    });
}

#[test]
fn requests_come_the_way_that_was_asked_for() {
    let storage = Storage::local();
    let expected = storage.put("file", 1, 200_000);
    let offer = fs::read_to_string("/sys/module/fuse/parameters/enable_uring");
    let is_offered = offer.is_ok_and(|offer| offer.trim() == "Y");
    for (way, over_uring) in [("dev", false), ("auto", is_offered), ("uring", true)] {
        let sandbox = Sandbox::new(&storage);
        let mounting = sandbox.mount(&storage).flag("--transport", way);
        let mounting = mounting.switch("--read-only");
        if way == "uring" && !is_offered {
            let refusal = mounting.run().refusal();
            for part in ["enable_uring", "--transport auto"] {
                assert!(refusal.contains(part), "{refusal}");
            }
            sandbox.assert_nothing_left();
            continue;
        }
        let mount = mounting.start();
        let status = mount.status().0;
        let shown = ["/dev/fuse", "io_uring"][usize::from(over_uring)];
        assert_eq!(status["kernel"]["transport"], shown, "{way}");
        assert_eq!(
            status["kernel"]["without_rings"].is_null(),
            over_uring,
            "{status}"
        );
        assert!(mount.read("file") == expected);
        mount.unmount();
    }
}

#[test]
fn serve_shows_several_storages_in_one_tree() {
    let (s3, local) = (Storage::s3(), Storage::local());
    s3.put("train/1", 1, 100_000);
    s3.put("other/2", 2, 10);
    local.put("labels", 3, 1000);
    let sandbox = Sandbox::new(&s3);
    let config = sandbox.dir().join("forebay.toml");
    let text = format!(
        "mount_point = '{point}'\n\n[cache]\ndir = '{cache}'\nsize = '1GiB'\n\n\
         [[mount]]\nat = '/images'\nuri = 's3://{BUCKET}/train'\n\
         options = {{ endpoint = '{endpoint}', region = '{region}' }}\n\n\
         [[mount]]\nat = '/meta/labels'\nuri = '{uri}'\nfreshness = 'immutable'\n",
        point = sandbox.point().display(),
        cache = sandbox.cache_dir().display(),
        endpoint = s3.relay().endpoint(),
        region = s3.server().region,
        uri = local.uri(),
    );
    fs::write(&config, text).unwrap();
    sandbox
        .run(&["config".as_ref(), "check".as_ref(), config.as_os_str()])
        .success();
    let mut serving = sandbox
        .command()
        .args(["serve".as_ref(), "--config".as_ref(), config.as_os_str()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait::until("it is mounted", || {
        sandbox.mounts().contains(&sandbox.point())
    });
    let mount = Mount::of(&sandbox, sandbox.point());
    let names = |dir: &str| {
        let entries = fs::read_dir(mount.path(dir)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["images", "meta"]);
    assert_eq!(names("images"), ["1"]);
    assert_eq!(names("meta"), ["labels"]);
    assert_eq!(data::check(1, 0, &mount.read("images/1")), Ok(()));
    assert_eq!(data::check(3, 0, &mount.read("meta/labels/labels")), Ok(()));
    assert_eq!(mount.status().0["mounts"].as_array().unwrap().len(), 2);
    mount.unmount();
    assert!(serving.wait().unwrap().success());
    sandbox.assert_nothing_left();
}

#[test]
fn a_configuration_is_checked_whole_and_its_example_passes() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let file = sandbox.dir().join("forebay.toml");
    let check = || sandbox.run(&["config".as_ref(), "check".as_ref(), file.as_os_str()]);
    let example = sandbox.run(&["config", "example"]).success();
    fs::write(&file, &example).unwrap();
    let unset = check().refusal();
    assert!(
        unset.contains("images_key_id"),
        "a reference that leads nowhere: {unset}"
    );
    let settled = example
        .lines()
        .filter(|line| !line.starts_with("credentials"))
        .map(|line| line.replace("/srv/datasets", storage.root().to_str().unwrap()))
        .map(|line| line.replace("/mnt/data", sandbox.point().to_str().unwrap()));
    fs::write(&file, settled.collect::<Vec<_>>().join("\n")).unwrap();
    check().success();

    let faulty = |cache: &str, memory: &str, uri: &str| {
        format!(
            "mount_point = '{}'\nmemory = '{memory}'\n[cache]\n{cache} = '1GiB'\n\
             [[mount]]\nat = '/a'\nuri = '{uri}'\n",
            sandbox.point().display()
        )
    };
    for (text, words) in [
        (
            faulty("sizes", "lots", "nowhere"),
            &["sizes", "'size'", "lots", "nowhere"][..],
        ),
        (faulty("size", "200MiB", "gopher://x"), &["gopher", "s3"]),
    ] {
        fs::write(&file, text).unwrap();
        let message = check().refusal();
        for word in words {
            assert!(message.contains(word), "no {word} in: {message}");
        }
    }
}

#[test]
fn a_mount_in_the_foreground_ends_when_it_is_unmounted() {
    let storage = Storage::local();
    storage.put("file", 1, 10);
    let sandbox = Sandbox::new(&storage);
    let mut command = sandbox.mount(&storage).switch("--foreground").command();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait::until("it is mounted", || {
        sandbox.mounts().contains(&sandbox.point())
    });
    let mount = Mount::of(&sandbox, sandbox.point());
    assert_eq!(mount.pid(), i32::try_from(child.id()).unwrap());
    assert_eq!(mount.read("file"), data::bytes(1, 10));
    sandbox
        .run(&["umount".as_ref(), sandbox.point().as_os_str()])
        .success();
    assert!(child.wait().unwrap().success());
    sandbox.assert_nothing_left();
}

#[test]
fn a_bare_path_and_a_prefix_are_mounted_too_and_read_only_is_accepted() {
    let (s3, local) = (Storage::s3(), Storage::local());
    for storage in [&s3, &local] {
        storage.put("below/prefix/file", 1, 1000);
        storage.put("outside", 2, 10);
        let sandbox = Sandbox::new(storage);
        let uri = storage.uri();
        let uri = format!(
            "{}/below/prefix",
            uri.strip_prefix("file://").unwrap_or(&uri)
        );
        let mount = sandbox
            .mount(storage)
            .uri(&uri)
            .switch("--read-only")
            .start();
        assert_eq!(fs::read_dir(mount.point()).unwrap().count(), 1);
        assert_eq!(mount.read("file"), data::bytes(1, 1000));
        assert!(fs::metadata(mount.path("outside")).is_err());
        assert!(fs::metadata(mount.path("../outside")).is_err());
    }
}

#[test]
fn secrets_are_in_no_argument_list_log_status_or_cache() {
    let storage = Storage::s3();
    storage.put("file", 1, 100_000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--log-level", "trace").start();
    mount.read("file");
    wait::until("it is cached", || {
        mount.status().number("/cache/used_bytes") >= 100_000
    });
    let secret = storage.server().secret_key.clone();
    let shows = |bytes: &[u8]| {
        bytes
            .windows(secret.len())
            .any(|part| part == secret.as_bytes())
    };
    for pid in sandbox.processes() {
        assert!(
            !shows(&fs::read(format!("/proc/{pid}/cmdline")).unwrap()),
            "argument list"
        );
    }
    let said = sandbox.run(&["status", "--json"]).success() + &sandbox.run(&["status"]).success();
    assert!(!shows(said.as_bytes()), "status");
    mount.unmount();
    let mut folders = vec![sandbox.dir().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => {
                    files += 1;
                    assert!(
                        !shows(&fs::read(entry.path()).unwrap()),
                        "{}",
                        entry.path().display()
                    );
                }
                _ => (),
            }
        }
    }
    assert!(files >= 2, "the log and the cache were looked at");
}

#[test]
fn what_a_daemon_leaves_on_disk_is_for_its_owner_only() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let storage = Storage::local();
    storage.put("file", 1, 100_000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    mount.read("file");
    let mode = fs::metadata(sandbox.cache_dir())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(
        mode & 0o077,
        0,
        "the cache directory is open to others: {mode:o}"
    );
    let run = sandbox.dir().join("run");
    let mode = fs::metadata(&run).unwrap().permissions().mode();
    assert_eq!(
        mode & 0o077,
        0,
        "the run directory is open to others: {mode:o}"
    );
    let sockets = fs::read_dir(&run).unwrap().flatten();
    let sockets: Vec<_> = sockets
        .filter(|entry| entry.file_type().unwrap().is_socket())
        .collect();
    assert_eq!(sockets.len(), 1);
    let mode = sockets[0].metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o177, 0, "the socket is open to others: {mode:o}");
    let mode = fs::metadata(sandbox.log()).unwrap().permissions().mode();
    assert_eq!(mode & 0o037, 0, "the log is open to others: {mode:o}");
}

#[test]
fn the_hit_ratio_is_the_share_of_the_bytes_that_were_not_fetched() {
    let storage = Storage::local();
    for index in 0..40 {
        storage.put(format!("images/{index}"), index, 100_000);
    }
    storage.put("large", 7, 20 << 20);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let ratio = || mount.status().0["cache"]["hit_ratio"].as_f64();
    let read = || {
        for index in 0..40 {
            mount.read(format!("images/{index}"));
        }
        mount.read("large");
    };
    assert_eq!(ratio(), None);
    read();
    assert!(ratio().unwrap() < 0.01, "a cold epoch: {:?}", ratio());
    drop_kernel_caches();
    read();
    let warm = ratio().unwrap();
    assert!((0.49..0.51).contains(&warm), "and a warm one: {warm}");
}

#[test]
fn names_that_cannot_be_shown_are_counted() {
    let storage = Storage::local();
    storage.put("file", 1, 10);
    let pipe = storage.root().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    assert_eq!(fs::read_dir(mount.point()).unwrap().count(), 1);
    assert!(mount.status().number("/names/left_out") > 0);
}

#[test]
fn a_log_in_json_has_an_object_in_each_line() {
    let storage = Storage::local();
    storage.put("file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).flag("--log-format", "json");
    let mount = mounting.start();
    mount.read("file");
    let path = mount.path("file");
    sandbox.run(&["free".as_ref(), path.as_os_str()]).success();
    mount.unmount();
    let log = fs::read_to_string(sandbox.log()).unwrap();
    let lines = log.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "{field} in {line}");
        }
        line["message"].as_str().unwrap().to_owned()
    });
    let told: Vec<String> = lines.collect();
    for word in ["mounted at", "free", "ended"] {
        assert!(
            told.iter().any(|line| line.contains(word)),
            "{word}: {told:#?}"
        );
    }
    let said = mounting.flag("--log-format", "xml").run().refusal();
    assert!(said.contains("xml") && said.contains("json"), "{said}");
}
