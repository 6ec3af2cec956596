// SPDX-License-Identifier: Apache-2.0
//! The admin API over TCP: for who has the token and over TLS, or not at all; and its answers are what
//! its document says.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use testkit::programs;
use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::Storage;

/// A daemon that listens over TCP, and what it told of that.
struct Door<'a> {
    mount: Mount<'a>,
    address: String,
    token_file: PathBuf,
    certificate: PathBuf,
    fingerprint: String,
}

/// Returns what stands between two words.
#[track_caller]
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("{before} in {text}"));
    rest.split_once(after)
        .unwrap_or_else(|| panic!("{after} in {text}"))
        .0
}

/// What is made at the first start lies in the sandbox.
fn sandbox(storage: &Storage) -> Sandbox {
    let sandbox = Sandbox::new(storage);
    let state = sandbox.dir().join("state");
    sandbox.with_variable("FOREBAY_STATE_DIR", state.to_str().unwrap())
}

fn open<'a>(sandbox: &'a Sandbox, storage: &Storage) -> Door<'a> {
    let mounting = sandbox.mount(storage).flag("--admin-listen", "127.0.0.1:0");
    let told = mounting.run().success();
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    Door {
        mount: Mount::of(sandbox, sandbox.point()),
        address: between(&told, "served at https://", " ").to_owned(),
        token_file: between(&told, "the token in ", ";").into(),
        certificate: between(&told, "certificate is ", " with").into(),
        fingerprint: told
            .split_once("SHA-256 ")
            .and_then(|(_, rest)| rest.split(' ').next())
            .unwrap()
            .to_owned(),
    }
}

impl Door<'_> {
    fn token(&self) -> String {
        fs::read_to_string(&self.token_file)
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Asks with a client of the system.
    fn curl(&self, path: &str, words: &[&str]) -> Output {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "-o", "-", "-w", "\n%{http_code}"]);
        curl.arg("--cacert").arg(&self.certificate).args(words);
        let port = self.address.rsplit(':').next().unwrap();
        let output = curl.arg(format!("https://localhost:{port}{path}")).output();
        output.unwrap()
    }

    /// Returns status and body of an answer.
    #[track_caller]
    fn answer(&self, path: &str, words: &[&str]) -> (String, String) {
        let output = self.curl(path, words);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    }
}

#[test]
fn the_admin_api_over_tcp_is_for_who_has_the_token() {
    let storage = Storage::local();
    storage.put("file", 1, 1000);
    let sandbox = sandbox(&storage);
    let door = open(&sandbox, &storage);
    let bearer = format!("Authorization: Bearer {}", door.token());
    let wrong = format!("Authorization: Bearer {}", "0".repeat(64));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&door.token_file), 0o600);
    let key = door
        .certificate
        .to_string_lossy()
        .replace("certificate", "key");
    assert_eq!(mode(Path::new(&key)), 0o600);

    for words in [
        &[][..],
        &["-H", &wrong],
        &["-H", "Authorization: Basic eDp5"],
    ] {
        for path in ["/v1/status", "/metrics", "/v1/openapi.json", "/elsewhere"] {
            let (status, body) = door.answer(path, words);
            assert_eq!(status, "401", "{path} {words:?}: {body}");
            assert!(body.contains("permission_denied"), "{body}");
        }
        let (status, _) = door.answer("/v1/unmount", &[&["-X", "POST"], words].concat());
        assert_eq!(status, "401");
    }
    let (status, body) = door.answer("/v1/status", &["-H", &bearer]);
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status.as_str(), &told["pid"]),
        ("200", &door.mount.pid().into())
    );
    let usage = ["-H", &bearer, "--json", r#"{"path": "/"}"#];
    let (status, body) = door.answer("/v1/usage", &usage);
    assert_eq!(status, "200", "{body}");

    // Without TLS nothing is answered.
    let mut bare = TcpStream::connect(&door.address).unwrap();
    let request = format!("GET /v1/status HTTP/1.1\r\nHost: x\r\n{bearer}\r\n\r\n");
    bare.write_all(request.as_bytes()).unwrap();
    let mut said = Vec::new();
    // The connection may be reset, too.
    bare.read_to_end(&mut said).ok();
    assert!(!String::from_utf8_lossy(&said).contains("HTTP"), "{said:?}");
    // Who says nothing keeps nobody out.
    let _silent: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(&door.address).unwrap())
        .collect();
    assert_eq!(door.answer("/v1/status", &["-H", &bearer]).0, "200");

    let log = fs::read_to_string(sandbox.log()).unwrap();
    assert!(log.contains("did not bring the token"), "{log}");
    assert!(log.contains("/v1/usage of '/': 200"), "{log}");
    assert!(!log.contains(&door.token()), "{log}");
    let address = door.address.clone();
    door.mount.unmount();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn token_and_certificate_stay_over_restarts_and_bad_ones_are_refused() {
    let storage = Storage::local();
    let sandbox = sandbox(&storage);
    let door = open(&sandbox, &storage);
    let (token, fingerprint) = (door.token(), door.fingerprint.clone());
    assert_eq!(fingerprint.split(':').count(), 32, "{fingerprint}");
    let printed = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(&door.certificate)
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains(&fingerprint), "{printed}");
    door.mount.unmount();
    let door = open(&sandbox, &storage);
    assert_eq!((door.token(), &door.fingerprint), (token, &fingerprint));
    let (token_file, certificate) = (door.token_file.clone(), door.certificate.clone());
    door.mount.unmount();

    fs::set_permissions(&token_file, fs::Permissions::from_mode(0o644)).unwrap();
    let mounting = sandbox
        .mount(&storage)
        .flag("--admin-listen", "127.0.0.1:0");
    let said = mounting.run().refusal();
    assert!(said.contains("chmod 600"), "{said}");
    fs::set_permissions(&token_file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&token_file, "short").unwrap();
    assert!(mounting.run().refusal().contains("holds no token"));
    fs::remove_file(&token_file).unwrap();
    let half = mounting.clone().flag("--admin-key", "/nowhere/key.pem");
    assert!(half.run().refusal().contains("--admin-certificate"));
    let absent = half.flag("--admin-certificate", "/nowhere/cert.pem");
    assert!(absent.run().refusal().contains("/nowhere/cert.pem"));
    fs::write(&certificate, "no certificate").unwrap();
    assert!(mounting.run().refusal().contains("no certificate"));
    let alone = sandbox.mount(&storage).flag("--admin-token-file", "/x");
    assert!(alone.run().refusal().contains("--admin-listen"));
    sandbox.assert_nothing_left();
}

#[test]
fn commands_ask_a_daemon_elsewhere() {
    let storage = Storage::local();
    storage.put("file", 1, 1000);
    let sandbox = sandbox(&storage);
    let door = open(&sandbox, &storage);
    let url = format!("https://{}", door.address);
    let [token, ca] = [&door.token_file, &door.certificate].map(|it| it.to_str().unwrap());
    let elsewhere = [
        "--admin",
        &url,
        "--admin-token-file",
        token,
        "--admin-ca",
        ca,
    ];
    let run = |words: &[&str]| sandbox.run(&[words, &elsewhere].concat());
    let told: Value = serde_json::from_str(&run(&["status", "--json"]).success()).unwrap();
    assert_eq!(told["daemons"][0]["pid"], door.mount.pid());
    assert!(run(&["metrics"]).success().contains("forebay_build_info"));
    let stats = run(&["stats", "--count", "1", "--interval", "50ms"]);
    assert!(stats.success().contains("hit-%"));
    assert!(run(&["costs"]).success().contains("file://"));

    // Not without each of the three, and not from somebody else.
    for (at, word) in [(2, "--admin-token-file"), (4, "--admin-ca")] {
        let words = [&["status"], &elsewhere[..at]].concat();
        let said = sandbox.run(&words).refusal();
        assert!(said.contains(word), "{said}");
    }
    let other = sandbox.dir().join("other");
    fs::write(&other, "f".repeat(64)).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    let other = other.to_str().unwrap();
    let words = ["status", "--admin", &url, "--admin-ca", ca];
    let said = sandbox.run(&[&words[..], &["--admin-token-file", other]].concat());
    assert!(said.refusal().contains("bring the token"));
    let system = "/etc/ssl/certs/ca-certificates.crt";
    let words = ["status", "--admin", &url, "--admin-token-file", token];
    let said = sandbox.run(&[&words[..], &["--admin-ca", system]].concat());
    assert!(said.refusal().contains("certificate"));
    door.mount.unmount();
}

#[test]
fn answers_are_what_the_document_says() {
    let storage = Storage::s3();
    for seed in 0..5 {
        storage.put(format!("d/{seed}"), seed, 50_000);
    }
    let sandbox = sandbox(&storage);
    let door = open(&sandbox, &storage);
    let mount = &door.mount;
    mount.read("d/1");
    fs::write(mount.path("new"), b"x").unwrap();
    sandbox
        .run(&["load".as_ref(), mount.path("d").as_os_str()])
        .success();
    sandbox
        .run(&["pin".as_ref(), mount.path("d").as_os_str()])
        .success();
    let tool = programs::environment("api").with_file_name("schemathesis");
    let mut command = Command::new(tool);
    let url = format!("https://{}", door.address);
    command
        .arg("run")
        .arg(format!("{url}/v1/openapi.json"))
        .arg(format!("--header=Authorization: Bearer {}", door.token()))
        .arg(format!("--tls-verify={}", door.certificate.display()))
        // What would end the daemon, or take long on purpose.
        .args(["--exclude-path", "/v1/unmount"])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "15",
        ])
        .args(["--seed", "1", "--no-color", "--warnings", "off"])
        .args(["--checks", CHECKS])
        .env("NO_PROXY", "*")
        .current_dir(sandbox.dir());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(mount.status().number("/pid") > 0, "it lives");
    door.mount.unmount();
}

/// Whether each answer has the status, the type and the shape that the document says.
const CHECKS: &str = "status_code_conformance,content_type_conformance,response_schema_conformance,\
                      negative_data_rejection,response_headers_conformance";

#[test]
fn usage_is_told_by_mount_and_by_name() {
    let (storage, other) = (Storage::local(), Storage::local());
    storage.put("a/one", 1, 1000);
    storage.put("a/deep/two", 2, 2000);
    storage.put("b", 3, 400);
    other.put("three", 4, 70_000);
    let sandbox = sandbox(&storage);
    let door = open(&sandbox, &storage);
    let point = sandbox.point();
    let at = ["--mount-point", point.to_str().unwrap()];
    let add = ["mounts", "add", "/a/more/c", &other.uri()];
    sandbox.run(&[&add[..], &at].concat()).success();
    door.mount.read("a/deep/two");
    door.mount.read("a/more/c/three");
    let bearer = format!("Authorization: Bearer {}", door.token());
    let ask = |path: &str| {
        let path = format!("/v1/usage?path={path}&names=true");
        let (status, body) = door.answer(&path, &["-H", &bearer]);
        assert_eq!(status, "200", "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let told = |list: &Value| {
        let each = list.as_array().unwrap().iter().map(|one| {
            let [bytes, cached] = ["bytes", "cached_bytes"].map(|name| one[name].as_u64().unwrap());
            let is_directory = one["is_directory"].as_bool().unwrap();
            (
                one["name"].as_str().unwrap().to_owned(),
                is_directory,
                bytes,
                cached,
            )
        });
        each.collect::<Vec<_>>()
    };
    let row =
        |name: &str, is_directory, bytes, cached| (name.to_owned(), is_directory, bytes, cached);
    let root = ask("/");
    assert_eq!(
        (&root["bytes"], &root["files"]),
        (&73_400.into(), &4.into())
    );
    let expected = [row("a", true, 73_000, 72_000), row("b", false, 400, 0)];
    assert_eq!(told(&root["names"]), expected);
    let expected = [
        row("/", true, 3400, 2000),
        row("/a/more/c", true, 70_000, 70_000),
    ];
    assert_eq!(told(&root["mounts"]), expected);
    let expected = [
        row("more", true, 70_000, 70_000),
        row("deep", true, 2000, 2000),
        row("one", false, 1000, 0),
    ];
    assert_eq!(told(&ask("/a")["names"]), expected);
    assert_eq!(told(&ask("/b")["names"]), []);
    let (status, body) = door.answer("/v1/usage?path=/nowhere", &["-H", &bearer]);
    assert_eq!(status, "404", "{body}");
    door.mount.unmount();
}
