// SPDX-License-Identifier: Apache-2.0
//! A storage that fails, or does not answer at all.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use types::{ByteRange, Clock, Deadline, Error, ErrorKind, ObjectMeta, ObjectPath, Result};
use types::{SystemClock, VersionTag};
use ufs::{ByteStream, Counters, ListStream, UnderStorage};

use crate::rig::{Rig, wait_for};

/// A storage without an answer: an error at once, or nothing ever.
#[derive(Debug, Default)]
struct Broken {
    silent: bool,
    counters: Counters,
}

impl Broken {
    async fn fail<T>(&self) -> Result<T> {
        if self.silent {
            std::future::pending::<()>().await;
        }
        Err(Error::new(ErrorKind::Unavailable, "the wire was cut"))
    }
}

#[async_trait]
impl UnderStorage for Broken {
    fn uri(&self) -> &str {
        "broken://"
    }

    fn identity(&self) -> &str {
        "broken"
    }

    async fn stat(&self, _: &ObjectPath, _: Deadline) -> Result<ObjectMeta> {
        self.fail().await
    }

    fn list(&self, _: &ObjectPath) -> ListStream {
        match self.silent {
            true => stream::pending().boxed(),
            false => {
                let fault = Error::new(ErrorKind::Unavailable, "the wire was cut");
                stream::iter([Err(fault)]).boxed()
            }
        }
    }

    async fn read(
        &self,
        _: &ObjectPath,
        _: &VersionTag,
        _: ByteRange,
        _: Deadline,
    ) -> Result<ByteStream> {
        self.fail().await
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

fn requests(rig: &Rig, kind: &str) -> u64 {
    let requests = rig.session.stats().requests;
    requests
        .into_iter()
        .find(|(name, _)| *name == kind)
        .unwrap()
        .1
}

#[test]
fn a_failing_storage_is_an_input_output_error_with_its_reason_kept() {
    let rig = Rig::over_storage(Arc::new(Broken::default()));
    let error = std::fs::metadata(rig.path("file")).unwrap_err();
    assert_eq!(
        error.raw_os_error(),
        Some(libc::EIO),
        "never \"no such file\""
    );
    let error = std::fs::read_dir(rig.root()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    let stats = rig.session.stats();
    assert_eq!(stats.errors, [(ErrorKind::Unavailable, 2)]);
    let kinds: Vec<&str> = stats
        .recent_errors
        .iter()
        .map(|error| error.operation)
        .collect();
    assert_eq!(kinds, ["lookup", "opendir"]);
    for error in stats.recent_errors {
        assert!(
            error.message.contains("the wire was cut"),
            "{}",
            error.message
        );
    }
}

#[test]
fn a_program_that_waits_for_a_silent_storage_can_be_killed() {
    let rig = Rig::over_storage(Arc::new(Broken {
        silent: true,
        ..Broken::default()
    }));
    let clock = SystemClock;
    let started = clock.now();
    for (program, kind) in [("stat", "lookup"), ("ls", "opendir")] {
        let path = if program == "ls" {
            rig.root()
        } else {
            rig.path("file")
        };
        let mut child = Command::new(program)
            .arg(path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the program waits", || requests(&rig, kind) == 1);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
    let deadline = vfs::Settings::default().deadline;
    assert!(
        clock.now() - started < deadline / 2,
        "they died before the storage's time was up"
    );
}

#[test]
fn a_mount_over_a_silent_storage_can_be_taken_away() {
    let rig = Rig::over_storage(Arc::new(Broken {
        silent: true,
        ..Broken::default()
    }));
    let mut child = Command::new("stat")
        .arg(rig.path("file"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the program waits", || requests(&rig, "lookup") == 1);
    rig.session.unmount(true).unwrap();
    assert!(!child.wait().unwrap().success(), "its wait failed");
    rig.session.wait().unwrap();
}
