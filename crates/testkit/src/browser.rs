// SPDX-License-Identifier: Apache-2.0
//! A real browser without a window, driven over a pipe by its own debugging protocol.
//!
//! Messages are JSON with a NUL at their end, on the file descriptors 3 and 4 of the browser. What a
//! page complains about on its console is kept, so that a test can say that there was nothing.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::fs::Mode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wait;

/// How long a browser may take for an answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running browser with one page.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    count: u64,
    session: Option<String>,
    complaints: Vec<String>,
    _dir: TempDir,
}

/// What a page is shown on.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Its width in CSS pixels.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// Whether its user prefers dark colours.
    pub is_dark: bool,
}

impl Browser {
    /// Starts Chromium with an empty page.
    ///
    /// # Panics
    /// When it is not installed or does not answer.
    pub fn start() -> Browser {
        let dir = TempDir::with_prefix("forebay-browser-").expect("temporary directory");
        for name in ["in", "out"] {
            let mode = Mode::RUSR | Mode::WUSR;
            rustix::fs::mknodat(
                rustix::fs::CWD,
                dir.path().join(name),
                rustix::fs::FileType::Fifo,
                mode,
                0,
            )
            .expect("make a pipe");
        }
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"exec chromium "$@" 3<"$0/in" 4>"$0/out""#])
            .arg(dir.path())
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .args([
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-sync",
            ])
            .args(["--disable-background-networking", "--disable-extensions"])
            .args(["--disable-component-update", "--hide-scrollbars=false"])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", dir.path().display()))
            .arg("about:blank")
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("a shell");
        let to = File::options().write(true).open(dir.path().join("in"));
        let from = File::open(dir.path().join("out")).expect("own pipe");
        let mut browser = Browser {
            child,
            to: to.expect("own pipe"),
            from: messages(from),
            count: 0,
            session: None,
            complaints: Vec::new(),
            _dir: dir,
        };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let made = self.ask("Target.createTarget", json!({"url": "about:blank"}));
        let id = made["targetId"].clone();
        let params = json!({"targetId": id, "flatten": true});
        let attached = self.ask("Target.attachToTarget", params);
        self.session = attached["sessionId"].as_str().map(String::from);
        for domain in ["Page", "Runtime", "Log"] {
            self.ask(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Opens an address on a screen, as a user who types it.
    pub fn open(&mut self, address: &str, screen: Screen) {
        let scheme = if screen.is_dark { "dark" } else { "light" };
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            json!({
                "width": screen.width,
                "height": screen.height,
                "deviceScaleFactor": 1,
                "mobile": screen.width < 600,
            }),
        );
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", json!({"features": features}));
        // An address that differs in its fragment alone would not be loaded again.
        self.ask("Page.navigate", json!({"url": "about:blank"}));
        self.ask("Page.navigate", json!({"url": address}));
    }

    /// Returns the value of an expression in the page.
    ///
    /// # Panics
    /// When it throws.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({
            "expression": expression,
            "returnByValue": true,
            "awaitPromise": true,
        });
        let answer = self.ask("Runtime.evaluate", params);
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    ///
    /// # Panics
    /// When it does not become so.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        // Also where the page is still being loaded.
        let guarded = format!("(() => {{ try {{ return Boolean({expression}) }} catch {{}} }})()");
        wait::until(expression, || self.value(&guarded) == json!(true));
    }

    /// Keeps a picture of the whole page.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn picture(&mut self, file: &Path) {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let answer = self.ask("Page.captureScreenshot", params);
        let text = answer["data"].as_str().expect("a picture");
        fs::write(file, from_base64(text)).expect("room for a picture");
    }

    /// Returns what pages complained about: errors and warnings of the console, failures to load.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.count += 1;
        let id = self.count;
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser listens");
        loop {
            let answer = self.from.recv_timeout(PATIENCE);
            let answer = answer.unwrap_or_else(|error| panic!("chromium: {method}: {error}"));
            if answer["id"] == json!(id) {
                let error = &answer["error"];
                assert!(error.is_null(), "{method}: {error}");
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let is_loud =
            |level: &Value| matches!(level.as_str(), Some("error" | "warning" | "assert"));
        let is_complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => is_loud(&params["type"]),
            Some("Log.entryAdded") => is_loud(&params["entry"]["level"]),
            Some("Page.javascriptDialogOpening") => true,
            _ => false,
        };
        if is_complaint {
            self.complaints.push(params.to_string());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It takes its helpers along.
        let bytes = b"{\"id\":0,\"method\":\"Browser.close\"}\0";
        let asked = self.to.write_all(bytes).is_ok();
        let ended = asked
            && wait::holds_within(Duration::from_secs(10), || {
                self.child.try_wait().is_ok_and(|ended| ended.is_some())
            });
        if !ended {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Reads messages on a thread of its own, so that a wait for one can end.
fn messages(from: File) -> Receiver<Value> {
    let (sender, receiver) = channel();
    let read = move || {
        for bytes in BufReader::new(from).split(0).map_while(Result::ok) {
            let message = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            if sender.send(message).is_err() {
                return;
            }
        }
    };
    std::thread::spawn(read);
    receiver
}

fn from_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|&byte| byte != b'=').collect();
    let groups = digits.chunks(4).flat_map(|group| {
        let bits = (group.iter()).fold(0_u32, |bits, &byte| bits << 6 | u32::from(value(byte)));
        let bits = bits << (6 * (4 - group.len()));
        bits.to_be_bytes()[1..group.len()].to_vec()
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_come_as_letters() {
        for (text, bytes) in [
            ("TWFu", &b"Man"[..]),
            ("TWE=", b"Ma"),
            ("TQ==", b"M"),
            ("", b""),
        ] {
            assert_eq!(from_base64(text), bytes);
        }
    }
}
