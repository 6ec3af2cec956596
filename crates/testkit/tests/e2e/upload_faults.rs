// SPDX-License-Identifier: Apache-2.0
//! The storage fails while files are written: at each step of an upload, in each way.
//!
//! Each case is a file of its own, and the relay knows by its name how its requests fail. While they
//! do, the writer is told within the deadline, the mount shows what was written, and the storage has
//! the old object or the new one. When the storage heals, it gets what was written.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use testkit::data;
use testkit::rigs::Fault;
use testkit::sandbox::Sandbox;
use testkit::storage::{BUCKET, Storage};
use testkit::wait;
use types::{Clock, SystemClock};

/// Large enough to be sent in parts.
const LARGE: usize = (17 << 20) + 5;
/// What one change of the storage may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// What a call may take over its deadline before that counts as a hang: a file in parts is several
/// requests, and giving up an upload is one more.
const SLACK: Duration = Duration::from_secs(15);
/// For ever.
const ALWAYS: u64 = u64::MAX;

/// A step of an upload, and what is to know of its request: the head, in lower case.
struct Step {
    name: &'static str,
    is_large: bool,
    is_it: fn(&str) -> bool,
}

/// Splits off the target of a request.
fn target(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

const STEPS: [Step; 4] = [
    Step {
        name: "put",
        is_large: false,
        is_it: |head| head.starts_with("put ") && !target(head).contains('?'),
    },
    Step {
        name: "create",
        is_large: true,
        is_it: |head| head.starts_with("post ") && target(head).contains("?uploads"),
    },
    Step {
        name: "part",
        is_large: true,
        is_it: |head| head.starts_with("put ") && target(head).contains("?partnumber="),
    },
    Step {
        name: "complete",
        is_large: true,
        is_it: |head| head.starts_with("post ") && target(head).contains("?uploadid="),
    },
];

const FAULTS: [(&str, Fault); 6] = [
    ("503", Fault::Refuse(503, "SlowDown")),
    ("500", Fault::Refuse(500, "InternalError")),
    ("403", Fault::Refuse(403, "AccessDenied")),
    ("cut", Fault::Cut),
    ("lost", Fault::LoseAnswer),
    ("silent", Fault::Silence),
];

/// A file whose requests fail.
struct Case {
    name: String,
    fault: Fault,
    old: Option<Vec<u8>>,
    new: Vec<u8>,
}

/// Makes a case of each step and each fault, has the relay know them, and puts old objects under
/// half of the names.
fn cases(storage: &Storage, times: u64) -> Vec<Case> {
    let mut cases = Vec::new();
    for step in STEPS {
        for (kind, fault) in FAULTS {
            let seed = cases.len() as u64;
            let name = format!("{}-{kind}", step.name);
            let of_this = format!("/{BUCKET}/{name}");
            storage.relay().fail(times, fault, move |head| {
                let path = target(head).split('?').next();
                path == Some(&*of_this) && (step.is_it)(head)
            });
            let old = (seed % 2 == 1).then(|| storage.put(&name, 100 + seed, 5000));
            let len = if step.is_large { LARGE } else { 70_000 };
            let new = data::bytes(seed, len);
            cases.push(Case {
                name,
                fault,
                old,
                new,
            });
        }
    }
    cases
}

impl Case {
    fn stored(&self, storage: &Storage) -> Option<Vec<u8>> {
        fs::read(storage.root().join(&self.name)).ok()
    }

    /// Whatever happens, nobody sees a part of an object.
    #[track_caller]
    fn is_whole(&self, storage: &Storage) {
        let stored = self.stored(storage);
        let is_whole = stored == self.old || stored.as_ref() == Some(&self.new);
        let len = stored.map(|bytes| bytes.len());
        assert!(is_whole, "{}: {len:?} bytes in the storage", self.name);
    }

    #[track_caller]
    fn becomes_stored(&self, storage: &Storage) {
        wait::until(&format!("{} is stored", self.name), || {
            self.stored(storage).as_ref() == Some(&self.new)
        });
    }

    /// Writes the file anew, in pieces, and syncs it.
    fn write(&self, at: &Path) -> io::Result<()> {
        let mut file = File::create(at.join(&self.name))?;
        for piece in self.new.chunks(1 << 20) {
            file.write_all(piece)?;
        }
        file.sync_all()
    }
}

#[track_caller]
fn is_one_of(name: &str, error: &io::Error, known: &[Errno]) {
    let known = known.iter().map(|errno| Some(errno.raw_os_error()));
    let is_known = known.into_iter().any(|code| code == error.raw_os_error());
    assert!(is_known, "{name}: {error}");
}

/// What a failed write may answer.
fn answers(fault: Fault) -> &'static [Errno] {
    match fault {
        Fault::Refuse(403, _) => &[Errno::ACCESS],
        _ => &[Errno::IO, Errno::TIMEDOUT],
    }
}

#[test]
fn a_step_that_fails_once_is_made_good() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--deadline", "15s").start();
    let cases: Vec<_> = cases(&storage, 1);
    std::thread::scope(|scope| {
        for case in &cases {
            let point = mount.point();
            scope.spawn(move || match (case.fault, case.write(point)) {
                // Not retried: it is what the storage says.
                (Fault::Refuse(403, _), Err(error)) => {
                    is_one_of(&case.name, &error, answers(case.fault));
                }
                // What is silent is given up when the deadline is over.
                (Fault::Silence, Err(_)) => {}
                (_, done) => done.unwrap_or_else(|error| panic!("{}: {error}", case.name)),
            });
        }
    });
    for case in &cases {
        case.becomes_stored(&storage);
        assert!(mount.read(&case.name) == case.new, "{}", case.name);
    }
    assert!(storage.relay().failed() >= cases.len() as u64);
    mount.unmount();
}

#[test]
fn a_step_that_fails_on_is_told_in_time_and_what_was_written_is_kept_and_stored_later() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--deadline", "3s").start();
    let cases: Vec<_> = cases(&storage, ALWAYS);
    std::thread::scope(|scope| {
        for case in &cases {
            let (point, storage) = (mount.point(), storage.root());
            scope.spawn(move || {
                let started = SystemClock.now();
                let done = case.write(point);
                let took = SystemClock.now() - started;
                assert!(took < DEADLINE + SLACK, "{}: {took:?}", case.name);
                match done {
                    // It was stored, and a look told so.
                    Ok(()) => {
                        assert_eq!(case.fault, Fault::LoseAnswer, "{}", case.name);
                        assert!(fs::read(storage.join(&case.name)).unwrap() == case.new);
                    }
                    Err(error) => is_one_of(&case.name, &error, answers(case.fault)),
                }
            });
        }
    });
    for case in &cases {
        case.is_whole(&storage);
        assert!(mount.read(&case.name) == case.new, "{}", case.name);
    }
    storage.relay().heal();
    for case in &cases {
        case.becomes_stored(&storage);
        assert!(mount.read(&case.name) == case.new, "{}", case.name);
    }
    mount.unmount();
}

#[test]
fn what_back_acknowledged_outlives_every_fault_and_a_kill() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).flag("--write-mode", "back");
    let mounting = mounting.flag("--deadline", "3s");
    let mount = mounting.start();
    let cases: Vec<_> = cases(&storage, ALWAYS);
    for case in &cases {
        let done = case.write(mount.point());
        done.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
    wait::until("each fault was met", || {
        storage.relay().failed() >= cases.len() as u64
    });
    mount.crash();
    for case in &cases {
        case.is_whole(&storage);
    }
    storage.relay().heal();
    let mount = mounting.start();
    for case in &cases {
        assert!(mount.read(&case.name) == case.new, "{}", case.name);
        case.becomes_stored(&storage);
    }
    let point = mount.point().to_str().unwrap();
    sandbox.run(&["sync", point, "--wait"]).success();
    for case in &cases {
        assert!(mount.read(&case.name) == case.new, "{}", case.name);
    }
    let names = fs::read_dir(mount.point()).unwrap().count();
    assert_eq!(names, cases.len(), "there are copies of conflicts");
    mount.unmount();
}

/// What a process writes that tells what came of its close.
const MADE: &[u8] = b"made while it was dying";

/// A process that has a file open. A drop of a file here would not tell what its close said.
struct Closing(Child);

impl Closing {
    fn start(path: &Path) -> Self {
        let script = "import os, sys\n\
            file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o644)\n\
            os.write(file, sys.argv[2].encode())\n\
            print(flush=True)\n\
            sys.stdin.readline()\n\
            try: os.close(file)\n\
            except OSError as error: print(error.errno)\n";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .arg(OsStr::from_bytes(MADE))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut written = [0];
        let stdout = child.stdout.as_mut().unwrap();
        stdout.read_exact(&mut written).unwrap();
        Closing(child)
    }

    fn close(&mut self) -> io::Result<()> {
        drop(self.0.stdin.take());
        let mut told = String::new();
        let stdout = self.0.stdout.as_mut().unwrap();
        stdout.read_to_string(&mut told).unwrap();
        assert!(self.0.wait().unwrap().success());
        match told.trim().parse() {
            Ok(code) => Err(io::Error::from_raw_os_error(code)),
            Err(_) => Ok(()),
        }
    }
}

#[test]
fn a_network_that_dies_under_a_close_is_an_error_in_time_and_the_close_ends() {
    let storage = Storage::s3();
    let old = storage.put("changed", 1, 300_000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--deadline", "3s").start();
    let changed = OpenOptions::new()
        .write(true)
        .open(mount.path("changed"))
        .unwrap();
    changed.write_all_at(b"changed", 1000).unwrap();
    let mut closing = Closing::start(&mount.path("made"));
    storage.relay().black_hole();
    let started = SystemClock.now();
    for error in [
        changed.sync_all().unwrap_err(),
        changed.sync_data().unwrap_err(),
        closing.close().unwrap_err(),
    ] {
        is_one_of("a dead network", &error, &[Errno::IO, Errno::TIMEDOUT]);
    }
    let took = SystemClock.now() - started;
    assert!(took < 3 * DEADLINE + SLACK, "{took:?}");
    drop(changed);
    let mut expected = old;
    expected[1000..1007].copy_from_slice(b"changed");
    assert_eq!(mount.read("made"), MADE);
    assert!(mount.read("changed") == expected);
    storage.switch_on();
    for (name, bytes) in [("made", MADE), ("changed", &expected)] {
        wait::until("the file is stored", || {
            fs::read(storage.root().join(name)).is_ok_and(|found| found == bytes)
        });
    }
    mount.unmount();
}

#[test]
fn a_line_that_is_slow_may_take_longer_than_the_deadline() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    storage.relay().set_upload_bandwidth(Some(4 << 20));
    let mount = sandbox.mount(&storage).flag("--deadline", "3s").start();
    for (name, len) in [("one request", 16 << 20), ("parts", 40 << 20)] {
        let (bytes, started) = (data::bytes(4, len), SystemClock.now());
        let mut file = File::create(mount.path(name)).unwrap();
        file.write_all(&bytes).unwrap();
        let log = || fs::read_to_string(sandbox.log()).unwrap();
        file.sync_all()
            .unwrap_or_else(|e| panic!("{name}: {e}\n{}", log()));
        let took = SystemClock.now() - started;
        assert!(
            took > Duration::from_secs(4),
            "{name}: the line is not slow: {took:?}"
        );
        assert!(fs::read(storage.root().join(name)).unwrap() == bytes);
    }
    assert_eq!(storage.relay().failed(), 0);
    mount.unmount();
}

#[test]
fn a_removal_that_fails_is_told_and_the_file_stays() {
    let storage = Storage::s3();
    for (kind, fault) in FAULTS {
        storage.put(kind, 7, 3000);
        let path = format!("/{BUCKET}/{kind}");
        storage.relay().fail(ALWAYS, fault, move |head| {
            head.starts_with("delete ") && target(head) == path
        });
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--deadline", "3s").start();
    std::thread::scope(|scope| {
        for (kind, fault) in FAULTS {
            let path = mount.path(kind);
            scope.spawn(move || match (fault, fs::remove_file(&path)) {
                // It is done, and nobody could say so.
                (Fault::LoseAnswer, _) => {}
                (_, Err(error)) => is_one_of(kind, &error, answers(fault)),
                (_, Ok(())) => panic!("{kind}: removed"),
            });
        }
    });
    for (kind, _) in FAULTS
        .iter()
        .filter(|(_, fault)| *fault != Fault::LoseAnswer)
    {
        assert!(storage.root().join(kind).try_exists().unwrap(), "{kind}");
        assert_eq!(data::check(7, 0, &mount.read(kind)), Ok(()), "{kind}");
    }
    storage.relay().heal();
    for (kind, fault) in FAULTS {
        match fs::remove_file(mount.path(kind)) {
            Err(error) if fault == Fault::LoseAnswer => {
                assert_eq!(error.kind(), io::ErrorKind::NotFound);
            }
            done => done.unwrap_or_else(|error| panic!("{kind}: {error}")),
        }
        assert!(!storage.root().join(kind).try_exists().unwrap(), "{kind}");
    }
    mount.unmount();
}
