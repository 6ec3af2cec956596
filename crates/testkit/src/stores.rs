// SPDX-License-Identifier: Apache-2.0
//! One storage of each kind with the same files in it, for tests of what all of them have in common.
//!
//! Real servers, as in [`crate::rigs`], with the words that lead the binary to them. Files are put
//! in by the servers' own interfaces, or beside them where they keep files as files.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use reqsign_core::hash::base64_hmac_sha1;
use reqsign_core::time::Timestamp;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::rigs::{Azurite, Ceph, CephFs, FakeGcs, Hdfs, Hub, Minio, NameNodes, WebServer};
use crate::storage::Storage;

/// What everything is put below: a bucket, a container, a directory.
const PLACE: &str = "shared";

/// May do everything until 2099, for anybody: signed with the key of the emulator's account, which
/// is published.
pub const AZURITE_TOKEN: &str = "sv=2018-11-09&ss=b&srt=sco&sp=rwdlc&se=2099-01-01T00%3A00%3A00Z\
                             &sig=96GeYi%2B1xz42aWqjf1TK6lSzPg311V%2FZ50YbAMr6Z2c%3D";

/// A storage, and how the binary is led to it.
#[derive(Debug)]
pub struct Store {
    /// Its scheme, or what else tells it from the others.
    pub name: &'static str,
    /// What is mounted.
    pub uri: String,
    /// Flags of `forebay mount` and its like.
    pub flags: Vec<String>,
    /// Variables that hold secrets.
    pub environment: Vec<(&'static str, String)>,
    server: Server,
    // Last, so that the server is gone before its directory.
    _dir: Option<TempDir>,
}

#[derive(Debug)]
enum Server {
    Files(Storage),
    Minio(Minio),
    Web(WebServer),
    Azure(Azurite),
    Google(FakeGcs),
    Hdfs(Arc<Hdfs>),
    Gateway(Arc<Cluster>),
    // Unmounted before the cluster ends.
    CephFiles(
        CephFs,
        #[allow(dead_code, reason = "kept running")] Arc<Cluster>,
    ),
    // Ends before what runs it.
    Hub(Hub, #[allow(dead_code, reason = "kept running")] Runtime),
}

/// A Ceph and its files.
#[derive(Debug)]
struct Cluster {
    ceph: Ceph,
    // Last, so that the servers are gone before their directory.
    _dir: TempDir,
}

impl Store {
    /// Starts one of each kind that takes little to start, HDFS with both of its protocols.
    ///
    /// # Panics
    /// When one does not start.
    pub fn each() -> Vec<Store> {
        let mut all = vec![
            Store::s3(),
            Store::local(),
            Store::web(),
            Store::azure(),
            Store::google(),
        ];
        all.extend(Store::hdfs());
        all
    }

    /// A versitygw.
    ///
    /// # Panics
    /// When it does not start.
    pub fn s3() -> Store {
        Store::of_files("s3", Storage::s3())
    }

    /// A local directory.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn local() -> Store {
        Store::of_files("file", Storage::local())
    }

    fn of_files(name: &'static str, storage: Storage) -> Store {
        Store {
            name,
            uri: storage.uri(),
            flags: storage.flags(),
            environment: storage.environment(),
            server: Server::Files(storage),
            _dir: None,
        }
    }

    /// A MinIO.
    ///
    /// # Panics
    /// When it does not start.
    pub fn minio() -> Store {
        let dir = directory();
        let server = Minio::start(dir.path()).expect("MinIO starts");
        let keys = [&server.access_key, &server.secret_key];
        send_signed("PUT", &server.endpoint, keys, PLACE, b"");
        Store {
            name: "s3",
            uri: format!("s3://{PLACE}"),
            flags: options_of(&[("endpoint", &server.endpoint)]),
            environment: vec![
                ("AWS_ACCESS_KEY_ID", server.access_key.clone()),
                ("AWS_SECRET_ACCESS_KEY", server.secret_key.clone()),
            ],
            server: Server::Minio(server),
            _dir: Some(dir),
        }
    }

    /// An nginx.
    ///
    /// # Panics
    /// When it does not start.
    pub fn web() -> Store {
        let dir = directory();
        let server = WebServer::nginx(dir.path()).expect("nginx starts");
        fs::create_dir(server.data_dir.join(PLACE)).expect("directory");
        Store {
            name: "http",
            uri: format!("{}/{PLACE}/", server.endpoint),
            flags: Vec::new(),
            environment: Vec::new(),
            server: Server::Web(server),
            _dir: Some(dir),
        }
    }

    /// An Azurite.
    ///
    /// # Panics
    /// When it does not start.
    pub fn azure() -> Store {
        let dir = directory();
        let server = Azurite::start(dir.path()).expect("Azurite starts");
        let query = format!("restype=container&{AZURITE_TOKEN}");
        send("PUT", &format!("{}/{PLACE}?{query}", server.endpoint), b"");
        let options = [
            ("account_name", &server.account),
            ("endpoint", &server.endpoint),
        ];
        Store {
            name: "az",
            uri: format!("az://{PLACE}"),
            flags: options_of(&options),
            environment: vec![("AZURE_STORAGE_KEY", server.key.clone())],
            server: Server::Azure(server),
            _dir: Some(dir),
        }
    }

    /// A fake-gcs-server.
    ///
    /// # Panics
    /// When it does not start.
    pub fn google() -> Store {
        let dir = directory();
        let server = FakeGcs::start(dir.path()).expect("fake-gcs-server starts");
        let body = format!("{{\"name\":\"{PLACE}\"}}");
        let url = format!("{}/storage/v1/b?project=rig", server.endpoint);
        send("POST", &url, body.as_bytes());
        let options = [
            ("endpoint", &server.endpoint),
            ("anonymous", &"true".to_owned()),
        ];
        Store {
            name: "gs",
            uri: format!("gs://{PLACE}"),
            flags: options_of(&options),
            environment: Vec::new(),
            server: Server::Google(server),
            _dir: Some(dir),
        }
    }

    /// One HDFS, by its RPC and by its web service; what is put into one is in the other.
    ///
    /// # Panics
    /// When it does not start.
    pub fn hdfs() -> [Store; 2] {
        let server = Hdfs::start(NameNodes::One, &[]).expect("HDFS starts");
        let (rpc, web) = (server.name_nodes[0].clone(), server.web[0].clone());
        let server = Arc::new(server);
        [("hdfs", rpc), ("webhdfs", web)].map(|(name, address)| Store {
            name,
            uri: format!("{name}://{address}/{PLACE}"),
            flags: Vec::new(),
            environment: Vec::new(),
            server: Server::Hdfs(Arc::clone(&server)),
            _dir: None,
        })
    }

    /// One Ceph, by its object gateway and by its file system, which hold different files.
    ///
    /// # Panics
    /// When it does not start.
    pub fn ceph() -> [Store; 2] {
        let dir = directory();
        let ceph = Ceph::start(dir.path()).expect("Ceph starts");
        let mounted = ceph.mount(&dir.path().join("mounted"));
        let mounted = mounted.expect("ceph-fuse mounts");
        fs::create_dir(mounted.mounted_at.join(PLACE)).expect("directory");
        let at = mounted.mounted_at.display().to_string();
        let cluster = Arc::new(Cluster { ceph, _dir: dir });
        cluster.send("PUT", PLACE, b"");
        let ceph = &cluster.ceph;
        let gateway = Store {
            name: "ceph",
            uri: format!("ceph://{PLACE}"),
            flags: options_of(&[("endpoint", &ceph.endpoint)]),
            environment: vec![
                ("AWS_ACCESS_KEY_ID", ceph.access_key.clone()),
                ("AWS_SECRET_ACCESS_KEY", ceph.secret_key.clone()),
            ],
            server: Server::Gateway(Arc::clone(&cluster)),
            _dir: None,
        };
        let files = Store {
            name: "cephfs",
            uri: format!("cephfs:///{PLACE}"),
            flags: options_of(&[("mounted_at", &at)]),
            environment: Vec::new(),
            server: Server::CephFiles(mounted, cluster),
            _dir: None,
        };
        [gateway, files]
    }

    /// A hub that speaks the endpoints of Hugging Face.
    ///
    /// # Panics
    /// When there is no port for it.
    pub fn hub() -> Store {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let hub = runtime.block_on(Hub::start());
        Store {
            name: "hf",
            uri: "hf://datasets/owner/name".into(),
            flags: options_of(&[("endpoint", &hub.door.endpoint().to_owned())]),
            environment: vec![("HF_TOKEN", Hub::TOKEN.into())],
            server: Server::Hub(hub, runtime),
            _dir: None,
        }
    }

    /// Returns whether it takes writes.
    pub fn is_writable(&self) -> bool {
        !matches!(self.server, Server::Web(_) | Server::Hub(..))
    }

    /// Puts a file; its name is plain.
    ///
    /// # Panics
    /// When the server does not take it.
    pub fn put(&self, name: &str, content: &[u8]) {
        match &self.server {
            Server::Files(storage) => storage.put_bytes(name, content),
            Server::Web(server) => write(server.data_dir.join(PLACE).join(name), content),
            Server::CephFiles(mounted, _) => {
                write(mounted.mounted_at.join(PLACE).join(name), content);
            }
            Server::Minio(server) => {
                let keys = [&server.access_key, &server.secret_key];
                let place = format!("{PLACE}/{name}");
                send_signed("PUT", &server.endpoint, keys, &place, content);
            }
            Server::Gateway(cluster) => cluster.send("PUT", &format!("{PLACE}/{name}"), content),
            Server::Hub(hub, _) => hub.put(name, content),
            Server::Azure(server) => {
                let url = format!("{}/{PLACE}/{name}?{AZURITE_TOKEN}", server.endpoint);
                send("PUT", &url, content);
            }
            Server::Google(server) => {
                let place = format!("upload/storage/v1/b/{PLACE}/o?uploadType=media");
                let name = name.replace('/', "%2F");
                send(
                    "POST",
                    &format!("{}/{place}&name={name}", server.endpoint),
                    content,
                );
            }
            Server::Hdfs(server) => {
                let path = format!("/{PLACE}/{name}");
                server
                    .tell(&[b"put", path.as_bytes(), content])
                    .expect("HDFS takes it");
            }
        }
    }

    /// Changes the mode of a file or a directory in HDFS; no name is that of the mounted directory.
    ///
    /// # Panics
    /// When this is no HDFS, or it does not do it.
    pub fn change_mode(&self, name: &str, mode: &str) {
        let Server::Hdfs(server) = &self.server else {
            panic!("{} has no modes", self.name)
        };
        let path = format!("/{PLACE}/{name}");
        let words = ["chmod", path.trim_end_matches('/'), mode].map(str::as_bytes);
        server.tell(&words).expect("HDFS does it");
    }

    /// Changes the owner and the group of a file in HDFS.
    ///
    /// # Panics
    /// When this is no HDFS, or it does not do it.
    pub fn change_owner(&self, name: &str, owner: &str, group: &str) {
        let Server::Hdfs(server) = &self.server else {
            panic!("{} has no names of owners", self.name)
        };
        let path = format!("/{PLACE}/{name}");
        let words = ["chown", &path, owner, group].map(str::as_bytes);
        server.tell(&words).expect("HDFS does it");
    }
}

impl Cluster {
    fn send(&self, method: &str, place: &str, body: &[u8]) {
        let ceph = &self.ceph;
        let keys = [&ceph.access_key, &ceph.secret_key];
        send_signed(method, &ceph.endpoint, keys, place, body);
    }
}

/// Sends one request of S3, with a signature of the second version, which is short.
fn send_signed(method: &str, endpoint: &str, keys: [&String; 2], place: &str, body: &[u8]) {
    let [access_key, secret_key] = keys;
    let date = Timestamp::now().format_http_date();
    let text = format!("{method}\n\n\n{date}\n/{place}");
    let signature = base64_hmac_sha1(secret_key.as_bytes(), text.as_bytes());
    let headers = [
        ("Date", date),
        ("Authorization", format!("AWS {access_key}:{signature}")),
    ];
    send_with(method, &format!("{endpoint}/{place}"), &headers, body);
}

/// Writes a file that a server keeps as a file.
fn write(path: PathBuf, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a file lies in a directory"))
        .and_then(|()| fs::write(path, content))
        .expect("file of the server");
}

fn directory() -> TempDir {
    TempDir::new().expect("temporary directory")
}

fn options_of(options: &[(&str, &String)]) -> Vec<String> {
    let flag = |(key, value): &(&str, &String)| ["--option".to_owned(), format!("{key}={value}")];
    options.iter().flat_map(flag).collect()
}

/// Sends one request that has to succeed.
fn send(method: &str, url: &str, body: &[u8]) {
    let headers = [
        ("x-ms-version", "2018-11-09".to_owned()),
        ("x-ms-blob-type", "BlockBlob".to_owned()),
    ];
    send_with(method, url, &headers, body);
}

/// The same, with other headers.
fn send_with(method: &str, url: &str, headers: &[(&str, String)], body: &[u8]) {
    let rest = url
        .strip_prefix("http://")
        .expect("servers of tests speak plain HTTP");
    let (host, target) = rest.split_once('/').expect("a URL has a path");
    let mut stream = TcpStream::connect(host).expect("the server listens");
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let head = format!(
        "{method} /{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: \
         {}\r\n{lines}\r\n",
        body.len()
    );
    let mut answer = String::new();
    let sent = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body))
        .and_then(|()| stream.read_to_string(&mut answer));
    sent.expect("an answer");
    let status = answer.split(' ').nth(1).unwrap_or_default();
    assert!(status.starts_with('2'), "{method} {url}: {answer}");
}
