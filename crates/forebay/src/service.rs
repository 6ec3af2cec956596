// SPDX-License-Identifier: Apache-2.0
//! What a daemon tells a service manager: that it is ready, that it lives, that it ends.
//!
//! The protocol of `sd_notify(3)`: a few words in one datagram, to the socket that the environment
//! names. Where none is named, nobody wants to know, and nothing is sent.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Handle;

/// Says that the mount answers, and from then on that the daemon lives.
pub(crate) fn ready(mount_point: &Path, runtime: &Handle) {
    let shown = mount_point.display();
    notify(&format!("READY=1\nSTATUS=mounted at {shown}"));
    runtime.spawn(keep_alive());
}

/// Says that the daemon ends.
pub(crate) fn stopping() {
    notify("STOPPING=1\nSTATUS=ends");
}

/// Says for ever that the daemon lives, as often as the manager wants to hear it. Runs where requests
/// are carried out, so that it falls silent when those do.
async fn keep_alive() {
    let own = std::process::id().to_string();
    let is_meant = std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid == own);
    let limit = std::env::var("WATCHDOG_USEC").ok();
    let Some(pause) = pause(limit.as_deref()).filter(|_| is_meant) else {
        return;
    };
    loop {
        notify("WATCHDOG=1");
        tokio::time::sleep(pause).await;
    }
}

/// Returns how long to pause: half of the time after which the manager takes the daemon for dead.
fn pause(limit_micros: Option<&str>) -> Option<Duration> {
    let micros = limit_micros?.parse().ok().filter(|micros| *micros > 0)?;
    Some(Duration::from_micros(micros) / 2)
}

fn notify(words: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = address(&path)
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::debug!("tell the service manager: {error}");
    }
}

fn address(path: &OsString) -> std::io::Result<SocketAddr> {
    match path.as_bytes().split_first() {
        // In the abstract name space.
        Some((b'@', name)) => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_is_told_twice_in_the_time_that_is_given() {
        assert_eq!(pause(Some("3000000")), Some(Duration::from_millis(1500)));
        for none in [None, Some("0"), Some("soon")] {
            assert_eq!(pause(none), None);
        }
    }

    #[test]
    fn sockets_have_a_path_or_an_abstract_name() {
        assert!(address(&"/run/x".into()).unwrap().as_pathname().is_some());
        let name = address(&"@x".into()).unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"x"[..]));
    }
}
