// SPDX-License-Identifier: Apache-2.0
//! `forebay top`: in a real terminal, of a real daemon.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, fadvise};
use rustix::process::Signal;
use serde_json::Value;
use testkit::pty::Pty;
use testkit::sandbox::{Mount, Sandbox, kill};
use testkit::storage::Storage;

/// Reads a file again and again, through the daemon, for as long as it lives.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Reader {
    fn of(mount: &Mount<'_>, name: &str) -> Reader {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (mount.path(name), Arc::clone(&stop));
        let read = move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut file = File::open(&path).unwrap();
                file.read_to_end(&mut Vec::new()).unwrap();
                // Or the kernel would answer the next one by itself.
                fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            }
        };
        Reader {
            stop,
            thread: Some(std::thread::spawn(read)),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn storage() -> Storage {
    let storage = Storage::s3();
    storage.put("train/image-1.jpg", 1, 3_000_000);
    storage.put("train/image-2.jpg", 2, 1000);
    storage
}

#[test]
fn files_processes_and_mounts_are_shown_and_the_terminal_is_given_back() {
    let storage = storage();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).switch("--no-passthrough").start();
    let mut command = sandbox.command();
    command.arg("top");
    let mut top = Pty::start(command);
    top.shows("forebay top");
    assert!(!top.is_as_before());
    let reader = Reader::of(&mount, "train/image-1.jpg");
    top.shows("/train/image-1.jpg");
    top.shows("M");
    top.shows("every read is copied through the daemon");
    assert!(top.text().lines().count() <= 24, "{}", top.text());
    top.press("p");
    top.shows(&format!("{} ", std::process::id()));
    top.press("m");
    top.shows("MOUNT");
    top.press("s");
    top.shows("by bytes written");
    top.press("1");
    top.shows("FILE");
    top.press("q");
    assert!(top.end().success());
    assert!(top.is_given_back(), "{}", top.text());
    drop(reader);
    mount.unmount();
}

#[test]
fn the_terminal_is_given_back_after_ctrl_c_a_signal_and_the_end_of_the_daemon() {
    let storage = storage();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let start = || {
        let mut command = sandbox.command();
        command.arg("top");
        let top = Pty::start(command);
        top.shows("forebay top");
        top
    };
    let mut top = start();
    top.press("\x03");
    assert!(top.end().success());
    assert!(top.is_given_back());
    for signal in [Signal::TERM, Signal::HUP] {
        let mut top = start();
        kill(top.pid(), signal);
        assert!(top.end().success(), "{signal:?}");
        assert!(top.is_given_back(), "{signal:?}");
    }
    let mut top = start();
    mount.unmount();
    assert_eq!(top.end().code(), Some(1));
    assert!(top.is_given_back());
    top.shows("the daemon has ended");
}

#[test]
fn a_script_gets_what_happened_in_a_second() {
    let storage = storage();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    mount.read("train/image-1.jpg");
    let reader = Reader::of(&mount, "train/image-1.jpg");
    let said = sandbox.run(&["top", "--json"]).success();
    let seen: Value = serde_json::from_str(&said).unwrap();
    let file = &seen["files"][0];
    assert_eq!(file["name"], "/train/image-1.jpg", "{said}");
    let count = |name: &str| file[name].as_u64().unwrap();
    assert!(count("opens") > 0);
    // The kernel either reads the file itself, which nobody sees, or asks for its bytes.
    match seen["passthrough"].as_bool().unwrap() {
        true => assert!(
            count("kernel_opens") > 0 && count("read_bytes") == 0,
            "{file}"
        ),
        false => assert!(count("read_bytes") > 1_000_000, "{file}"),
    }
    assert_eq!(seen["processes"][0]["pid"], std::process::id());
    assert_eq!(seen["mounts"][0]["name"], "/");
    let said = sandbox.run(&["top", "--once"]).success();
    assert!(
        said.contains("/train/image-1.jpg") && said.contains("PROCESS"),
        "{said}"
    );
    // Nobody looks at a screen that is none.
    let refused = sandbox.run(&["top"]).refusal();
    assert!(refused.contains("--once"), "{refused}");
    drop(reader);
    mount.unmount();
}
