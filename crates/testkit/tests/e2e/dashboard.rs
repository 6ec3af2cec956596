// SPDX-License-Identifier: Apache-2.0
//! `forebay dashboard` in a real browser, and at the hands of who should not see it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::browser::{Browser, Screen};
use testkit::sandbox::{self, Mount, Sandbox};
use testkit::storage::Storage;
use testkit::wait;

/// A running `forebay dashboard`.
struct Dashboard {
    child: Child,
    address: String,
}

impl Dashboard {
    fn start(sandbox: &Sandbox) -> Dashboard {
        let mut command = sandbox.command();
        command.arg("dashboard").arg(sandbox.point());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut address = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        Dashboard { child, address }
    }

    fn host(&self) -> &str {
        let (_, rest) = self.address.split_once("//").unwrap();
        rest.split_once('/').unwrap().0
    }

    fn token(&self) -> &str {
        self.address.split_once("#token=").unwrap().1
    }

    /// Sends a request as it is, and returns the whole answer.
    fn bare(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.host()).unwrap();
        let request = format!("{request}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn end(mut self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        sandbox::kill(pid, Signal::INT);
        assert!(self.child.wait().unwrap().success());
    }
}

/// Returns the number that an element was made of.
fn value(browser: &mut Browser, id: &str) -> Value {
    let text = browser.value(&format!("document.getElementById('{id}').dataset.value"));
    let text = text.as_str().unwrap_or("null");
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// Waits until an element was made of a number, which may take the page's next look.
#[track_caller]
fn shows(browser: &mut Browser, id: &str, number: &Value) {
    wait::holds_within(Duration::from_secs(10), || value(browser, id) == *number);
    assert_eq!(value(browser, id), *number, "{id}");
}

fn usage(sandbox: &Sandbox, path: &Path) -> Value {
    let words = ["du".as_ref(), path.as_os_str(), "--json".as_ref()];
    let told: Value = serde_json::from_str(&sandbox.run(&words).success()).unwrap();
    told[0].clone()
}

/// Puts a tree into a storage, of which half of the bytes get cached, one file by a slow request.
fn used<'a>(storage: &Storage, sandbox: &'a Sandbox) -> Mount<'a> {
    let lengths = (40_000..).step_by(9_000);
    for (seed, len) in (0..12).zip(lengths) {
        storage.put(format!("train/cats/{seed:04}.jpg"), seed, len);
        storage.put(format!("train/dogs/{seed:04}.jpg"), 50 + seed, 60_000);
        storage.put(format!("val/{seed:04}.jpg"), 100 + seed, 30_000);
    }
    storage.put("shards/train-0000.tar", 7, 3_000_000);
    storage.put("<img src=x onerror=alert(1)>", 8, 200_000);
    storage.put("late.bin", 9, 100_000);
    let mount = sandbox.mount(storage).flag("--deadline", "10s").start();
    for seed in 0..12 {
        mount.read(format!("train/cats/{seed:04}.jpg"));
        mount.read(format!("train/cats/{seed:04}.jpg"));
    }
    let path = mount.path("val");
    sandbox.run(&["load".as_ref(), path.as_os_str()]).success();
    mount.path("late.bin").metadata().unwrap();
    storage.relay().set_latency(Duration::from_millis(800));
    mount.read("late.bin");
    storage.relay().set_latency(Duration::ZERO);
    mount
}

/// Looks at the page on one screen, and checks its numbers against the command line's.
fn look(browser: &mut Browser, sandbox: &Sandbox, mount: &Mount<'_>, screen: Screen) {
    browser.until("document.getElementById('map').dataset.path === '/'");
    browser.until("Number(document.body.dataset.looks) >= 2");
    browser.until("document.getElementById('mount-cached-0') !== null");
    // What these ask a storage for counts, so they come first.
    let whole = usage(sandbox, mount.point());
    let train = usage(sandbox, &mount.path("train"));
    let status = mount.status();
    for (id, pointer) in [
        ("about", "/pid"),
        ("served", "/cache/served_bytes"),
        ("fetched", "/cache/fetched_bytes"),
        ("cache-used", "/cache/used_bytes"),
        ("waits", "/kernel/waits"),
        ("staged", "/staged/files"),
    ] {
        shows(browser, id, &json!(status.number(pointer)));
    }
    shows(browser, "mount-0", &json!(status.requests()));
    let ratio = status.0["cache"]["hit_ratio"].as_f64().unwrap();
    let shown = value(browser, "hit-ratio").as_f64().unwrap();
    assert!((shown - ratio).abs() < 1e-9, "{shown} and {ratio}");
    shows(browser, "mount-cached-0", &whole["cached_bytes"]);
    shows(browser, "map-sum", &whole["cached_bytes"]);
    let shown = browser.value("document.querySelector('[data-name=train]').dataset.value");
    assert_eq!(shown, json!(train["cached_bytes"].to_string()));

    let load = browser.value("document.querySelector('[data-load=\"/val\"]').dataset.state");
    assert_eq!(load, "complete");
    let slow = browser.value("document.querySelector('[data-slow=\"/late.bin\"]').dataset.value");
    let slow: u64 = slow.as_str().unwrap().parse().unwrap();
    assert!(slow >= 800, "{slow}");
    let images = browser.value("document.querySelectorAll('#map img').length");
    assert_eq!(images, 0, "a name of an object is text");

    let width = browser.value("document.documentElement.scrollWidth");
    assert!(
        width.as_u64().unwrap() <= u64::from(screen.width),
        "{width}"
    );
    // Nothing in a card reaches beyond it either, but for what is cut on purpose.
    let outside = browser.value(
        "[...document.querySelectorAll('main *')].filter((one) => !one.closest('.map, svg')
            && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML)",
    );
    assert_eq!(outside, json!([]));
    let ground = browser.value("getComputedStyle(document.body).backgroundColor");
    let numbers = ground
        .as_str()
        .unwrap()
        .trim_matches(|c: char| !c.is_ascii_digit());
    let first: u32 = numbers.split(',').next().unwrap().parse().unwrap();
    assert_eq!(first < 100, screen.is_dark, "{ground}");
    let hidden = browser.value("location.hash + sessionStorage.length");
    assert_eq!(hidden, "1", "the token is out of the address");
}

#[test]
fn the_dashboard_shows_what_status_says_on_each_screen() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let state = sandbox.dir().join("state");
    let sandbox = sandbox.with_variable("FOREBAY_STATE_DIR", state.to_str().unwrap());
    let mount = used(&storage, &sandbox);
    let dashboard = Dashboard::start(&sandbox);
    let mut browser = Browser::start();
    for (width, height) in [(360, 780), (1400, 900)] {
        for is_dark in [false, true] {
            let screen = Screen {
                width,
                height,
                is_dark,
            };
            browser.open(&dashboard.address, screen);
            look(&mut browser, &sandbox, &mount, screen);
            if let Some(dir) = std::env::var_os("FOREBAY_PICTURES") {
                let name = format!("{width}-{}.png", if is_dark { "dark" } else { "light" });
                browser.picture(&Path::new(&dir).join(name));
            }
        }
    }
    // Into a directory, and what is inside.
    browser.value("document.querySelector('[data-name=train]').click()");
    browser.until("document.getElementById('map').dataset.path === '/train'");
    let names = browser.value(
        "[...document.querySelectorAll('#map [data-name]')].map((one) => one.dataset.name).sort()",
    );
    assert_eq!(names, json!(["cats", "dogs"]));
    let all = browser.complaints();
    assert!(all.is_empty(), "{all:?}");

    // The daemon goes, and comes back.
    mount.unmount();
    browser.until("document.getElementById('state').textContent === 'no answer'");
    browser.until("!document.getElementById('trouble').hidden");
    let mount = sandbox.mount(&storage).start();
    browser.until("document.getElementById('state').textContent === 'live'");
    let pid = mount.pid().to_string();
    browser.until(&format!(
        "document.getElementById('about').dataset.value === '{pid}'"
    ));
    dashboard.end();
    mount.unmount();
}

#[test]
fn the_dashboard_is_for_whoever_has_its_whole_address() {
    let storage = Storage::local();
    storage.put("file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let dashboard = Dashboard::start(&sandbox);
    let host = format!("Host: {}", dashboard.host());
    let bearer = format!("Authorization: Bearer {}", dashboard.token());
    let wrong = bearer.replace(dashboard.token(), &"0".repeat(64));
    for (status, line, headers) in [
        ("200", "GET /", vec![&*host]),
        ("200", "GET /v1/status", vec![&host, &bearer]),
        (
            "200",
            "GET /v1/usage?path=/&names=true",
            vec![&host, &bearer],
        ),
        ("400", "GET /v1/usage?road=/", vec![&host, &bearer]),
        ("401", "GET /v1/status", vec![&host]),
        ("401", "GET /v1/status", vec![&host, &wrong]),
        ("401", "GET /v1/status", vec![&host, "Cookie: token=x"]),
        // A name that was made to lead here, and pages of other origins.
        ("403", "GET /", vec!["Host: evil.example"]),
        ("403", "GET /v1/status", vec!["Host: evil.example", &bearer]),
        (
            "403",
            "GET /v1/status",
            vec![&host, &bearer, "Origin: http://evil.example"],
        ),
        (
            "403",
            "GET /v1/status",
            vec![&host, &bearer, "Sec-Fetch-Site: cross-site"],
        ),
        // Nothing is changed, whoever asks.
        ("404", "GET /v1/unmount", vec![&host, &bearer]),
        ("404", "GET /metrics", vec![&host, &bearer]),
        (
            "501",
            "POST /v1/unmount",
            vec![&host, &bearer, "Content-Length: 0"],
        ),
        (
            "501",
            "POST /v1/usage",
            vec![&host, &bearer, "Content-Length: 0"],
        ),
    ] {
        let answer = dashboard.bare(&format!("{line} HTTP/1.1\r\n{}", headers.join("\r\n")));
        let expected = format!("HTTP/1.1 {status}");
        assert!(
            answer.starts_with(&expected),
            "{line} {headers:?}: {answer}"
        );
        let lower = answer.to_lowercase();
        assert!(
            lower.contains("content-security-policy: default-src 'none'"),
            "{answer}"
        );
        assert!(!lower.contains("access-control-"), "{answer}");
        assert!(!answer.contains(dashboard.token()), "{answer}");
    }
    let log = std::fs::read_to_string(sandbox.log()).unwrap();
    assert!(!log.contains(dashboard.token()), "{log}");
    mount.unmount();
    wait::until("it is told that the daemon has gone", || {
        let asked = format!("GET /v1/status HTTP/1.1\r\n{host}\r\n{bearer}");
        dashboard.bare(&asked).starts_with("HTTP/1.1 503")
    });
    dashboard.end();
    let said = sandbox.run(&["dashboard"]).refusal();
    assert!(said.contains("no daemon"), "{said}");
    sandbox.assert_nothing_left();
}
