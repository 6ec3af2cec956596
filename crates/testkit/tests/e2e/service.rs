// SPDX-License-Identifier: Apache-2.0
//! Forebay as part of a machine: under a service manager, in /etc/fstab, as a package, in a shell.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use testkit::data;
use testkit::sandbox::{Mount, Sandbox, binary, kill};
use testkit::storage::Storage;
use testkit::wait;

fn deploy(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap();
    root.join("deploy").join(name)
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{command:?}: {said:?}");
    said.concat()
}

#[test]
fn a_service_manager_hears_of_the_start_of_life_and_of_the_end() {
    let storage = Storage::s3();
    storage.put("file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let heard = || {
        let mut buf = [0; 1000];
        let len = manager.recv(&mut buf).unwrap();
        String::from_utf8(buf[..len].to_vec()).unwrap()
    };
    let mounting = sandbox.mount(&storage).switch("--foreground");
    // As a manager does it: it knows the process before that runs.
    let mut command = Command::new("sh");
    let own = mounting.command();
    command
        .args(["-c", "WATCHDOG_PID=$$ exec \"$@\"", "sh"])
        .arg(own.get_program());
    command.args(own.get_args()).env_clear();
    command.envs(
        own.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = command.spawn().unwrap();
    let ready = heard();
    assert!(ready.starts_with("READY=1\nSTATUS=mounted at "), "{ready}");
    let mount = Mount::of(&sandbox, sandbox.point());
    assert_eq!(mount.read("file"), data::bytes(1, 1000));
    assert_eq!(
        (heard(), heard()),
        ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned())
    );
    kill(mount.pid(), Signal::TERM);
    wait::until("it says that it ends", || heard().starts_with("STOPPING=1"));
    assert!(daemon.wait().unwrap().success());
    sandbox.assert_nothing_left();
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let dir = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(deploy("forebay@.service")).unwrap();
    let path = binary("forebay");
    let unit = unit.replace("/usr/bin/forebay", path.to_str().unwrap());
    let file = dir.path().join("forebay@data.service");
    fs::write(&file, unit).unwrap();
    let mut verify = Command::new("systemd-analyze");
    let said = succeeds(verify.args(["verify", "--man=no"]).arg(&file));
    assert!(!said.contains("forebay@"), "{said}");
}

#[test]
fn a_line_of_fstab_mounts() {
    let storage = Storage::s3();
    storage.put("file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let helper = sandbox.dir().join("mount.forebay");
    std::os::unix::fs::symlink(binary("forebay"), &helper).unwrap();
    let own = sandbox.command();
    let flags = storage.flags();
    let flags = flags
        .chunks(2)
        .map(|pair| format!("{}={}", &pair[0][2..], pair[1]));
    let cache = format!("cache_dir={}", sandbox.cache_dir().display());
    let options = ["ro,_netdev,nofail,x-systemd.automount".to_owned(), cache];
    let options: Vec<_> = options.into_iter().chain(flags).collect();
    let mut command = Command::new(&helper);
    command
        .arg(storage.uri())
        .arg(sandbox.point())
        .args(["-o", &options.join(",")]);
    command.env_clear().envs(
        own.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let said = succeeds(&mut command);
    assert!(said.contains("read-only"), "{said}");
    let mount = Mount::of(&sandbox, sandbox.point());
    assert_eq!(mount.read("file"), data::bytes(1, 1000));
    fs::write(mount.path("new"), b"x").unwrap_err();
    mount.unmount();
}

#[test]
fn a_package_holds_binary_unit_helper_pages_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("forebay.deb");
    let mut make = Command::new(deploy("package"));
    // A binary for tests is large, and how small it gets is no matter here.
    make.env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    succeeds(make.arg(binary("forebay")).arg(&package));
    let listed = succeeds(Command::new("dpkg-deb").arg("--contents").arg(&package));
    for name in [
        "./usr/bin/forebay\n",
        "./usr/sbin/mount.forebay -> ../bin/forebay\n",
        "./lib/systemd/system/forebay@.service\n",
        "./usr/share/man/man1/forebay-mount.1.gz\n",
        "./usr/share/bash-completion/completions/forebay\n",
    ] {
        assert!(listed.contains(name), "{name} in {listed}");
    }
    assert!(
        listed.lines().all(|line| line.contains("root/root")),
        "{listed}"
    );
    let told = succeeds(Command::new("dpkg-deb").arg("--info").arg(&package));
    assert!(told.contains("Depends: libc6, fuse3"), "{told}");
}

#[test]
fn a_shell_completes_verbs_and_man_shows_them() {
    let sandbox = Sandbox::new(&Storage::local());
    let script = sandbox.run(&["completions", "bash"]).success();
    let file = sandbox.dir().join("completions");
    fs::write(&file, script).unwrap();
    let words = "source \"$0\"; COMP_WORDS=(forebay sc); COMP_CWORD=1; _forebay forebay sc forebay; \
                 echo \"${COMPREPLY[@]}\"";
    let found = succeeds(Command::new("bash").args(["-c", words]).arg(&file));
    assert_eq!(found.trim(), "scrub");
    for shell in ["zsh", "fish"] {
        assert!(
            sandbox
                .run(&["completions", shell])
                .success()
                .contains("scrub")
        );
    }
    let pages = sandbox.dir().join("man1");
    sandbox.run(&["man".as_ref(), pages.as_os_str()]).success();
    let page = fs::read_to_string(pages.join("forebay-mount.1")).unwrap();
    assert!(
        page.contains("cache\\-size") && page.contains(".TH"),
        "{page}"
    );
    assert!(pages.join("forebay-mounts-add.1").try_exists().unwrap());
    assert!(
        !pages.join("forebay-daemon.1").try_exists().unwrap(),
        "it is hidden"
    );
}
