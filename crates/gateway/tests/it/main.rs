// SPDX-License-Identifier: Apache-2.0
//! The admin API over a real Unix socket, with its own client and with bare bytes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod metrics;
mod openapi;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::{Client, Node, NodeFuture, wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use types::{Error, ErrorKind};

const PATIENCE: Duration = Duration::from_secs(10);

/// A daemon that remembers what it was asked.
#[derive(Default)]
struct Toy {
    asked: Mutex<Vec<wire::Unmount>>,
    busy: bool,
    silent: bool,
}

impl Node for Toy {
    fn status(&self) -> wire::Status {
        wire::Status {
            pid: 42,
            mount_point: "/mnt/data".into(),
            loads: vec![wire::Job::default()],
            ..wire::Status::default()
        }
    }

    fn mounts(&self) -> wire::MountList {
        let at = "/".to_owned();
        let mount = wire::Mount {
            at,
            ..wire::Mount::default()
        };
        wire::MountList {
            mount_point: "/mnt/data".into(),
            mounts: vec![mount],
        }
    }

    fn add_mount(&self, request: wire::AddMount) -> NodeFuture<wire::MountChanged> {
        let (at, uri) = (request.at, request.uri);
        let options = request.change.options;
        let mount = wire::Mount {
            at,
            uri,
            options,
            ..wire::Mount::default()
        };
        let notices = vec!["hello".to_owned()];
        Box::pin(async { Ok(wire::MountChanged { mount, notices }) })
    }

    fn update_mount(&self, request: wire::UpdateMount) -> NodeFuture<wire::MountChanged> {
        let (at, freshness) = (request.at, request.change.freshness.unwrap_or_default());
        let mount = wire::Mount {
            at,
            freshness,
            ..wire::Mount::default()
        };
        Box::pin(async {
            Ok(wire::MountChanged {
                mount,
                ..Default::default()
            })
        })
    }

    fn remove_mount(&self, request: wire::RemoveMount) -> NodeFuture<wire::MountChanged> {
        let text = format!("nothing is mounted at '{}'", request.at);
        Box::pin(async { Err(Error::new(ErrorKind::NotFound, text)) })
    }

    fn sync(&self, request: wire::Sync) -> NodeFuture<wire::Synced> {
        let place = wire::SyncedPlace {
            path: request.path,
            names: Some(3),
            ..wire::SyncedPlace::default()
        };
        let places = vec![place];
        Box::pin(async {
            Ok(wire::Synced {
                places,
                notices: Vec::new(),
            })
        })
    }

    fn staged(&self) -> wire::StagedList {
        let file = wire::StagedFile {
            path: "/a".into(),
            bytes: 5,
            ..wire::StagedFile::default()
        };
        wire::StagedList {
            mount_point: "/mnt/data".into(),
            files: vec![file],
        }
    }

    fn drop_staged(&self, request: wire::DropStaged) -> NodeFuture<wire::DroppedStaged> {
        let dropped = wire::DroppedStaged {
            path: request.path,
            bytes: 5,
            notices: Vec::new(),
        };
        Box::pin(async { Ok(dropped) })
    }

    fn load(&self, request: wire::Load) -> NodeFuture<wire::Job> {
        let only = request.only.unwrap_or_default();
        let job = wire::Job {
            path: request.path,
            found_files: only.len() as u64,
            ..wire::Job::default()
        };
        Box::pin(async { Ok(job) })
    }

    fn jobs(&self) -> wire::JobList {
        let running = wire::Job {
            state: "running".into(),
            ..wire::Job::default()
        };
        wire::JobList {
            mount_point: "/mnt/data".into(),
            jobs: vec![running],
        }
    }

    fn stop_job(&self, request: wire::StopJob) -> NodeFuture<wire::Job> {
        let text = format!("no load of '{}' runs", request.path);
        Box::pin(async { Err(Error::new(ErrorKind::NotFound, text)) })
    }

    fn free(&self, request: wire::OfPath) -> NodeFuture<wire::Freed> {
        let freed = wire::Freed {
            path: request.path,
            files: 1,
            bytes: 5,
            pinned_bytes: 0,
        };
        Box::pin(async { Ok(freed) })
    }

    fn usage(&self, request: wire::Measure) -> NodeFuture<wire::Usage> {
        let usage = wire::Usage {
            path: request.path,
            files: 2,
            ..wire::Usage::default()
        };
        Box::pin(async { Ok(usage) })
    }

    fn history(&self) -> wire::History {
        wire::History {
            mount_point: "/mnt/data".into(),
            samples: vec![wire::Sample::default()],
        }
    }

    fn check(&self, request: wire::Check) -> NodeFuture<wire::Checked> {
        let checked = wire::Checked {
            path: request.path,
            stale_files: u64::from(request.bytes),
            ..wire::Checked::default()
        };
        Box::pin(async { Ok(checked) })
    }

    fn scrub(&self, request: wire::Scrub) -> NodeFuture<wire::Scrubbed> {
        let scrubbed = wire::Scrubbed {
            bytes: request.bandwidth_bytes.unwrap_or(0),
            ..wire::Scrubbed::default()
        };
        Box::pin(async move { Ok(scrubbed) })
    }

    fn pin(&self, request: wire::OfPath) -> NodeFuture<wire::Pinned> {
        let pinned = wire::Pinned {
            path: request.path,
            pinned_files: 3,
            ..wire::Pinned::default()
        };
        Box::pin(async { Ok(pinned) })
    }

    fn traffic(&self) -> wire::Traffic {
        wire::Traffic::default()
    }

    fn rules(&self) -> wire::RuleList {
        wire::RuleList::default()
    }

    fn set_rule(&self, request: wire::SetRule) -> NodeFuture<wire::Rule> {
        let rule = wire::Rule {
            path: request.path,
            ttl_seconds: request.ttl_seconds,
            ..wire::Rule::default()
        };
        Box::pin(async { Ok(rule) })
    }

    fn remove_rule(&self, request: wire::RemoveRule) -> NodeFuture<wire::Rule> {
        let text = format!("'{}' has no rule", request.path);
        Box::pin(async { Err(Error::new(ErrorKind::NotFound, text)) })
    }

    fn unpin(&self, request: wire::OfPath) -> NodeFuture<wire::Unpinned> {
        let text = format!("'{}' is not pinned", request.path);
        Box::pin(async { Err(Error::new(ErrorKind::NotFound, text)) })
    }

    fn unmount(&self, request: wire::Unmount) -> NodeFuture<wire::Unmounted> {
        self.asked.lock().unwrap().push(request);
        let (busy, silent) = (self.busy, self.silent);
        Box::pin(async move {
            match (busy, silent) {
                (true, _) => Err(Error::new(ErrorKind::Busy, "3 files are open")),
                (_, true) => std::future::pending().await,
                _ => Ok(wire::Unmounted {
                    pid: 42,
                    waiting_files: 0,
                }),
            }
        })
    }
}

/// A toy daemon behind a socket in a directory of its own.
struct Rig {
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<types::Result<()>>,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn start(node: Arc<Toy>) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let listener = gateway::admin::bind(&socket).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Handle::current();
        let server = runtime.spawn(gateway::serve(listener, node, async {
            stopped.await.ok();
        }));
        Rig {
            socket,
            stop: Some(stop),
            server,
            _dir: dir,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    async fn bare(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_client_reads_the_status_of_a_daemon() {
    let rig = Rig::start(Arc::new(Toy::default()));
    let status = rig.client().status(PATIENCE).await.unwrap();
    assert_eq!((status.pid, status.mount_point.as_str()), (42, "/mnt/data"));
}

#[tokio::test]
async fn the_socket_is_for_its_owner_only() {
    let rig = Rig::start(Arc::new(Toy::default()));
    assert_eq!(mode(&rig.socket), 0o600);
}

#[tokio::test]
async fn an_unmount_request_arrives_as_it_was_sent() {
    let toy = Arc::new(Toy::default());
    let rig = Rig::start(Arc::clone(&toy));
    let request = wire::Unmount {
        force: true,
        timeout_seconds: 7,
    };
    assert_eq!(
        rig.client().unmount(request, PATIENCE).await.unwrap().pid,
        42
    );
    assert_eq!(*toy.asked.lock().unwrap(), [request]);
}

#[tokio::test]
async fn a_busy_mount_is_a_conflict_with_its_reason() {
    let rig = Rig::start(Arc::new(Toy {
        busy: true,
        ..Toy::default()
    }));
    let request = wire::Unmount {
        force: false,
        timeout_seconds: 0,
    };
    let error = rig.client().unmount(request, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(error.to_string(), "3 files are open");
}

#[tokio::test]
async fn a_daemon_that_does_not_answer_is_a_timeout_and_a_gone_one_is_unavailable() {
    let mut rig = Rig::start(Arc::new(Toy {
        silent: true,
        ..Toy::default()
    }));
    let request = wire::Unmount {
        force: false,
        timeout_seconds: 0,
    };
    let error = rig
        .client()
        .unmount(request, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    rig.stop.take().unwrap().send(()).unwrap();
    (&mut rig.server).await.unwrap().unwrap();
    let error = rig.client().status(PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_socket_file_left_by_a_dead_daemon_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    drop(gateway::admin::bind(&socket).unwrap());
    assert!(socket.try_exists().unwrap());
    gateway::admin::bind(&socket).unwrap();
}

#[tokio::test]
async fn bad_requests_are_answered_in_json_with_a_status_that_fits() {
    let toy = Arc::new(Toy::default());
    let rig = Rig::start(Arc::clone(&toy));
    let post = |body: &str| {
        let head = "POST /v1/unmount HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length:";
        format!("{head} {}\r\n\r\n{body}", body.len())
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    for (request, status, kind) in [
        (post("{"), "400", "invalid"),
        (post(r#"{"fource": true}"#), "400", "invalid"),
        (post(&"x".repeat(20_000)), "400", "invalid"),
        (get("/v2/status"), "404", "not_found"),
        (get("/v1/unmount"), "501", "unsupported"),
    ] {
        let answer = rig.bare(&request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains(&format!(r#""kind":"{kind}""#)), "{answer}");
    }
    assert!(toy.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn mounts_are_listed_added_changed_and_removed() {
    let rig = Rig::start(Arc::default());
    let client = rig.client();
    let list = client.mounts(PATIENCE).await.unwrap();
    assert_eq!(
        (list.mount_point.as_str(), list.mounts.len()),
        ("/mnt/data", 1)
    );
    let change = wire::MountChange {
        options: [("region".to_owned(), "eu-1".to_owned())].into(),
        freshness: Some("5s".into()),
        ..wire::MountChange::default()
    };
    let request = wire::AddMount {
        at: "/x".into(),
        uri: "s3://b".into(),
        change: change.clone(),
    };
    let added = client.add_mount(&request, PATIENCE).await.unwrap();
    assert_eq!(
        (added.mount.uri.as_str(), added.notices.len()),
        ("s3://b", 1)
    );
    assert_eq!(added.mount.options["region"], "eu-1");
    let request = wire::UpdateMount {
        at: "/x".into(),
        change,
    };
    let changed = client.update_mount(&request, PATIENCE).await.unwrap();
    assert_eq!(changed.mount.freshness, "5s");
    let request = wire::RemoveMount {
        at: "/y".into(),
        wait_seconds: None,
        force: false,
    };
    let error = client.remove_mount(&request, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("'/y'"), "{error}");
}

#[tokio::test]
async fn loads_are_begun_listed_and_stopped_and_paths_freed_and_measured() {
    let daemon = Rig::start(Arc::default());
    let client = daemon.client();
    // A list of paths may be longer than any other request.
    let only: Vec<_> = (0..10_000).map(|index| format!("/d/{index:020}")).collect();
    let request = wire::Load {
        path: "/d".into(),
        only: Some(only),
        ..wire::Load::default()
    };
    let job = client.load(&request, PATIENCE).await.unwrap();
    assert_eq!((job.path.as_str(), job.found_files), ("/d", 10_000));
    let jobs = client.jobs(PATIENCE).await.unwrap();
    assert_eq!(jobs.jobs[0].state, "running");
    let path = "/d".to_owned();
    let stop = wire::StopJob { path: path.clone() };
    let error = client.stop_job(&stop, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let of = wire::OfPath { path };
    assert_eq!(client.free(&of, PATIENCE).await.unwrap().bytes, 5);
    let measure = wire::Measure {
        path: of.path.clone(),
        names: true,
    };
    assert_eq!(client.usage(&measure, PATIENCE).await.unwrap().files, 2);
    assert_eq!(client.pin(&of, PATIENCE).await.unwrap().pinned_files, 3);
    let check = wire::Check {
        path: of.path.clone(),
        bytes: true,
        drop: false,
    };
    assert_eq!(client.check(&check, PATIENCE).await.unwrap().stale_files, 1);
    let scrub = wire::Scrub {
        bandwidth_bytes: Some(7),
    };
    assert_eq!(client.scrub(&scrub, PATIENCE).await.unwrap().bytes, 7);
    let error = client.unpin(&of, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
