// SPDX-License-Identifier: Apache-2.0
//! Values as people write them: times, freshness, modes, key=value.
//!
//! One reader for each, used by flags and by the configuration file alike, so that both take the
//! same words and give the same advice.

use std::net::SocketAddr;
use std::time::Duration;

use fuse::Transport;
use types::{Freshness, ObjectPath};
use vfs::WriteMode;
use worker::settings::{Bounds, WIDTH};

use crate::plan::LogFormat;

/// The storages' clients have so many connections, and some more for what is not data.
const REQUESTS_MAX: usize = WIDTH.most;

/// Longest time that any setting takes: a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads a time: `500ms`, `60s`, `5m`, `2h`, `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("'{text}' is not a time; write a number and a unit, as in 500ms or 60s");
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| fault())?;
    let unit_ms = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(fault()),
    };
    let duration = number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or_else(fault)?;
    match duration <= LONGEST {
        true => Ok(duration),
        false => Err(format!("'{text}' is longer than a year")),
    }
}

/// Shows a time as [`duration`] reads it, in the largest unit that loses nothing.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, unit_ms) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ] {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

/// Shows how long something took, for people.
pub(crate) fn show_elapsed(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0 => "less than a second".to_owned(),
        1..120 => format!("{seconds}s"),
        120..7200 => format!("{minutes}m {}s", seconds % 60),
        _ => format!("{hours}h {}m", minutes % 60),
    }
}

/// Reads a freshness: `immutable`, `always`, or a maximum age.
pub(crate) fn freshness(text: &str) -> Result<Freshness, String> {
    match text.trim() {
        "immutable" => Ok(Freshness::Immutable),
        "always" => Ok(Freshness::Always),
        other => match duration(other) {
            Ok(Duration::ZERO) => Ok(Freshness::Always),
            Ok(age) => Ok(Freshness::MaxAge(age)),
            Err(_) => Err(format!(
                "'{text}' is not immutable, always or a time such as 60s"
            )),
        },
    }
}

/// Shows a freshness as [`freshness`] reads it.
pub(crate) fn show_freshness(freshness: Freshness) -> String {
    match freshness {
        Freshness::Immutable => "immutable".into(),
        Freshness::Always => "always".into(),
        Freshness::MaxAge(age) => show_duration(age),
    }
}

/// Reads when what is written reaches the storage.
pub(crate) fn write_mode(text: &str) -> Result<WriteMode, String> {
    match text.trim() {
        "through" => Ok(WriteMode::Through),
        "back" => Ok(WriteMode::Back),
        "local" => Ok(WriteMode::Local),
        "read-only" => Ok(WriteMode::ReadOnly),
        _ => Err(format!("'{text}' is not through, back, local or read-only")),
    }
}

/// Reads the path below a mount that has a write mode of its own; comes back without slashes at its
/// ends.
pub(crate) fn write_mode_path(text: &str) -> Result<String, String> {
    let bare = text.trim().trim_matches('/');
    match ObjectPath::parse(bare.as_bytes()) {
        Ok(path) if !path.is_root() => Ok(bare.to_owned()),
        Ok(_) => Err(format!(
            "'{text}' is the whole mount: give its write mode instead"
        )),
        Err(fault) => Err(format!("'{text}' is no path below the mount: {fault}")),
    }
}

/// Reads a path below a mount and its write mode, as in `/scratch=local`. A path without one, as in
/// `/scratch=`, has the mode of the mount again.
pub(crate) fn write_mode_for(text: &str) -> Result<(String, Option<WriteMode>), String> {
    let (path, mode) = text
        .rsplit_once('=')
        .ok_or_else(|| format!("'{text}' is not PATH=MODE, as in /scratch=local"))?;
    let path = write_mode_path(path)?;
    match mode.trim() {
        "" => Ok((path, None)),
        mode => Ok((path, Some(write_mode(mode)?))),
    }
}

/// Reads an address of this machine and a port: `127.0.0.1:9465`.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let fault = |_| format!("'{text}' is not an address and a port, as in 127.0.0.1:9465");
    text.trim().parse().map_err(fault)
}

/// Reads the address of an OpenTelemetry collector; comes back with the path that takes traces.
pub(crate) fn collector(text: &str) -> Result<String, String> {
    let fault = |why: &str| {
        format!(
            "'{text}' {why}: give the address where a collector takes OTLP over HTTP, as in http://localhost:4318"
        )
    };
    let mut url =
        reqwest::Url::parse(text.trim()).map_err(|error| fault(&format!("is no URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(fault("is not of http or https"));
    }
    if !url.has_host() {
        return Err(fault("has no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fault(
            "holds credentials, which others could read (OTEL_EXPORTER_OTLP_HEADERS is for them)",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(fault("has a query"));
    }
    if url.path() == "/" {
        url.set_path("/v1/traces");
    }
    Ok(url.into())
}

/// Reads how the log is written.
pub(crate) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.trim() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("'{other}' is not known: give text or json")),
    }
}

/// Reads a part of a whole: `1%`, or `0.01`.
pub(crate) fn part(text: &str) -> Result<f64, String> {
    let (number, whole) = match text.trim().strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(part) if (0.0..=whole).contains(&part) => Ok(part / whole),
        _ => Err(format!(
            "'{text}' is no part of a whole: write 1% or 0.01, up to 100% or 1"
        )),
    }
}

/// Reads a number of requests at a time, or the least and the most of it.
pub(crate) fn at_a_time(text: &str) -> Result<Bounds, String> {
    let number = |text: &str| match text.trim().parse() {
        Ok(count @ 1..=REQUESTS_MAX) => Ok(count),
        _ => Err(format!(
            "'{text}' is not a number of requests at a time: write 64, or 4-256, up to {REQUESTS_MAX}"
        )),
    };
    let Some((least, most)) = text.split_once('-') else {
        return number(text).map(Bounds::fixed);
    };
    let (least, most) = (number(least)?, number(most)?);
    match least <= most {
        true => Ok(Bounds {
            least,
            first: WIDTH.first.clamp(least, most),
            most,
        }),
        false => Err(format!(
            "{least} is more than {most}: write the least first"
        )),
    }
}

/// Reads how the kernel hands requests over.
pub(crate) fn transport(text: &str) -> Result<Transport, String> {
    match text.trim() {
        "auto" => Ok(Transport::Auto),
        "dev" => Ok(Transport::Dev),
        "uring" => Ok(Transport::Uring),
        _ => Err(format!("'{text}' is not auto, dev or uring")),
    }
}

/// Shows it as [`transport`] reads it.
pub(crate) fn show_transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Auto => "auto",
        Transport::Dev => "dev",
        Transport::Uring => "uring",
    }
}

/// Reads permission bits in octal, with or without a leading `0` or `0o`.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let digits = text.trim().trim_start_matches("0o");
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!(
            "'{text}' is not a mode; write up to three octal digits, as in 0644"
        )),
    }
}

/// Reads `key=value`; the value may hold further equals signs.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err(format!("'{text}' is not key=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown_alike() {
        for (text, ms) in [("0s", 0), ("500ms", 500), ("60s", 60_000), ("5m", 300_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["500ms", "1500ms", "59s", "5m", "2h", "1d"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "5 weeks",
            "99999999999999999999s",
            "400d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_took_long_is_shown_in_two_units() {
        for (seconds, text) in [
            (0, "less than a second"),
            (119, "119s"),
            (125, "2m 5s"),
            (7199, "119m 59s"),
            (7260, "2h 1m"),
        ] {
            assert_eq!(show_elapsed(seconds), text);
        }
    }

    #[test]
    fn a_collector_is_an_address_and_gets_the_path_that_takes_traces() {
        let read = |text: &str| collector(text).unwrap();
        assert_eq!(read("http://h:4318"), "http://h:4318/v1/traces");
        assert_eq!(read("https://h/"), "https://h/v1/traces");
        assert_eq!(read("http://[::1]:4318/otlp/x"), "http://[::1]:4318/otlp/x");
        for bad in [
            "h:4318",
            "http://",
            "ftp://h",
            "http://u:p@h",
            "http://h/?a",
            "",
        ] {
            let why = collector(bad).unwrap_err();
            assert!(why.contains("OTLP over HTTP"), "{why}");
        }
    }

    #[test]
    fn a_part_is_a_number_or_a_percentage() {
        for (text, value) in [("1%", 0.01), ("0.25", 0.25), ("100 %", 1.0), ("0", 0.0)] {
            assert_eq!(part(text), Ok(value), "{text}");
        }
        for bad in ["", "%", "2", "101%", "-1%", "NaN", "one"] {
            assert!(part(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn freshness_is_a_word_or_an_age() {
        assert_eq!(freshness("immutable"), Ok(Freshness::Immutable));
        assert_eq!(freshness("always"), Ok(Freshness::Always));
        assert_eq!(freshness("0s"), Ok(Freshness::Always));
        assert_eq!(
            freshness("2m"),
            Ok(Freshness::MaxAge(Duration::from_secs(120)))
        );
        assert!(freshness("60").unwrap_err().contains("60s"));
        for text in ["immutable", "always", "90s"] {
            assert_eq!(show_freshness(freshness(text).unwrap()), text);
        }
    }

    #[test]
    fn transports_are_words() {
        for text in ["auto", "dev", "uring"] {
            assert_eq!(show_transport(transport(text).unwrap()), text);
        }
        assert_eq!(transport(" auto ").unwrap(), Transport::default());
        let refused = transport("io_uring").unwrap_err();
        assert_eq!(refused, "'io_uring' is not auto, dev or uring");
    }

    #[test]
    fn requests_at_a_time_are_one_number_or_two() {
        assert_eq!(at_a_time("64"), Ok(Bounds::fixed(64)));
        assert_eq!(at_a_time("4-256"), Ok(WIDTH));
        let few = Bounds {
            least: 2,
            first: 8,
            most: 8,
        };
        assert_eq!(at_a_time(" 2 - 8 "), Ok(few));
        for bad in ["", "0", "0-4", "8-2", "a-b", "4-", "257", "1-1000"] {
            assert!(at_a_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn write_modes_are_words() {
        for text in ["through", "back", "local", "read-only"] {
            assert_eq!(write_mode(text).unwrap().name(), text);
        }
        assert!(write_mode("writeback").unwrap_err().contains("back"));
        let local = Some(WriteMode::Local);
        assert_eq!(write_mode_for("/a/b/=local"), Ok(("a/b".into(), local)));
        assert_eq!(write_mode_for("a=b=local"), Ok(("a=b".into(), local)));
        assert_eq!(write_mode_for("/a="), Ok(("a".into(), None)));
        for (text, why) in [
            ("/a", "PATH=MODE"),
            ("/=back", "whole mount"),
            ("a/../b=back", "no path"),
            ("/a=later", "through"),
        ] {
            let error = write_mode_for(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0644"), Ok(0o644));
        assert_eq!(mode("755"), Ok(0o755));
        assert_eq!(mode("0o600"), Ok(0o600));
        for bad in ["", "9", "rw", "10000", "7777", "1755", "-1"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_split_at_the_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err());
        assert!(pair("=b").is_err());
    }
}
