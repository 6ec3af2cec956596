// SPDX-License-Identifier: Apache-2.0
//! `forebay doctor`: what keeps a mount from working, or from being fast, and the command that mends
//! it.
//!
//! `host` looks at the machine, `disk` at the place of the cache; a storage is tried by the steps of
//! `mounts check`, and a running mount is asked how it is. Nothing is changed but for a small file
//! that is written to the cache disk and to the storage, and removed again.

mod disk;
mod host;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gateway::{Client, wire};
use serde::Serialize;
use types::{ByteSize, SystemClock};

use super::check;
use super::mounts::block_on;
use crate::cli::DoctorArgs;
use crate::places;
use crate::plan::MountPlan;
use crate::records::{self, Record};

/// A status is answered from memory.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
/// Storages refuse signatures that are off by fifteen minutes.
const CLOCK_OFF_MAX: u64 = 900;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Pass,
    /// It works, and could be better.
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    /// Why it matters, and what to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn pass(name: &'static str, detail: impl Into<String>) -> Finding {
        Finding {
            name,
            verdict: Verdict::Pass,
            detail: detail.into(),
            why: None,
            fix: None,
        }
    }

    fn warn(name: &'static str, detail: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Warn,
            ..Finding::pass(name, detail)
        }
    }

    fn fail(name: &'static str, detail: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Fail,
            ..Finding::pass(name, detail)
        }
    }

    fn because(self, why: &'static str, fix: impl Into<String>) -> Finding {
        Finding {
            why: Some(why),
            fix: Some(fix.into()),
            ..self
        }
    }
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report {
    /// This machine, the place of the cache, and a running mount.
    host: Vec<Finding>,
    /// The steps of a storage.
    #[serde(flatten)]
    storage: Option<check::Report>,
}

/// Looks at everything; fails when something does.
pub(crate) fn run(args: &DoctorArgs, run_dir: Option<&Path>) -> Result<()> {
    let found = records::scan(&places::run_dirs(run_dir))?;
    let daemon = args
        .target
        .as_deref()
        .and_then(|target| running(&found.live, target));
    let tell = |findings: &[Finding]| {
        if !args.json {
            findings
                .iter()
                .for_each(|finding| super::tell(line(finding)));
        }
    };
    let mut host = host::findings();
    host.push(dead_mounts(&found.dead));
    tell(&host);
    let status = match &daemon {
        Some(daemon) => Some(block_on(Client::new(&daemon.socket).status(PATIENCE))?),
        None => None,
    };
    let cache_dir = match (&args.cache_dir, &status) {
        (Some(dir), _) => Some(std::path::absolute(dir).unwrap_or_else(|_| dir.clone())),
        (None, Some(Ok(status))) => Some(PathBuf::from(&status.cache.dir)),
        (None, _) => places::default_caches(),
    };
    if let Some(dir) = cache_dir {
        let disk = disk::findings(&dir, &SystemClock);
        tell(&disk);
        host.extend(disk);
    }
    let mut storage = None;
    if let (Some(daemon), Some(status)) = (&daemon, &status) {
        let mount = of_mount(daemon, status);
        tell(&mount);
        host.extend(mount);
    } else if let Some(target) = &args.target {
        let plan = MountPlan::of_flags(target, &args.storage)?;
        let resolved: Vec<_> = names(&plan).into_iter().collect();
        tell(&resolved);
        host.extend(resolved);
        let steps = check::examine(&plan, args.json)?;
        let clock = [clock(steps.clock_ahead)];
        tell(&clock);
        host.extend(clock);
        storage = Some(steps);
    }
    end(args, Report { host, storage })
}

/// Prints what is left to print, and fails when something failed.
fn end(args: &DoctorArgs, report: Report) -> Result<()> {
    if args.json {
        let text = serde_json::to_string_pretty(&report).context("write JSON")?;
        super::answer(text + "\n")?;
    }
    let of = |verdict| report.host.iter().filter(move |one| one.verdict == verdict);
    let failed: Vec<_> = of(Verdict::Fail)
        .map(|one| format!("'{}' failed", one.name))
        .collect();
    let storage = report.storage.as_ref().and_then(check::Report::failed);
    let faults: Vec<_> = failed.into_iter().chain(storage).collect();
    if !faults.is_empty() {
        bail!("{}", faults.join("; "));
    }
    if !args.json {
        let warned = of(Verdict::Warn).count();
        super::tell(match warned {
            0 => "all is well\n".to_owned(),
            1 => "nothing keeps a mount from working; 1 thing could be better\n".to_owned(),
            _ => format!("nothing keeps a mount from working; {warned} things could be better\n"),
        });
    }
    Ok(())
}

/// Returns the daemon whose mount point is meant.
fn running(live: &[Record], target: &str) -> Option<Record> {
    if target.contains("://") {
        return None;
    }
    let point = places::mounted_at(Path::new(target)).ok()?;
    live.iter().find(|one| one.mount_point == point).cloned()
}

fn line(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Pass => "pass",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    };
    let (name, detail) = (finding.name, &finding.detail);
    let mut text = format!("{verdict:<14}{name:<28}  {detail}\n");
    for (word, value) in [("why", finding.why), ("fix", finding.fix.as_deref())] {
        if let Some(value) = value {
            text.push_str(&format!("{:<44}{word}: {value}\n", ""));
        }
    }
    text
}

fn dead_mounts(dead: &[Record]) -> Finding {
    const NAME: &str = "dead mounts";
    let points: Vec<_> = dead
        .iter()
        .map(|one| one.mount_point.display().to_string())
        .collect();
    match points.first() {
        None => Finding::pass(NAME, "none"),
        Some(first) => Finding::warn(NAME, points.join(", ")).because(
            "their daemons died, and every access there fails until they are taken away",
            format!("forebay umount {first}"),
        ),
    }
}

/// Asks the name service for the host of a storage.
fn names(plan: &MountPlan) -> Option<Finding> {
    const NAME: &str = "name service";
    let endpoint = plan.options.get("endpoint").or_else(|| {
        let of_hosts = [
            "hdfs://",
            "webhdfs://",
            "swebhdfs://",
            "http://",
            "https://",
        ];
        let has_host = of_hosts.iter().any(|scheme| plan.uri.starts_with(scheme));
        has_host.then_some(&plan.uri)
    })?;
    let (_, place) = endpoint.split_once("://")?;
    let host = place.split('/').next()?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(|c| c == '[' || c == ']');
    let asked = std::net::ToSocketAddrs::to_socket_addrs(&(name, 0));
    Some(match asked.map(|mut found| found.next()) {
        Ok(Some(address)) => Finding::pass(NAME, format!("{name} is {}", address.ip())),
        Ok(None) => unnamed(name, "it has no address"),
        Err(error) => unnamed(name, &error.to_string()),
    })
}

fn unnamed(name: &str, why: &str) -> Finding {
    Finding::fail("name service", format!("{name}: {why}")).because(
        "without an address nothing can be asked of the storage",
        format!("check the name, and /etc/resolv.conf: getent hosts {name}"),
    )
}

/// Compares the clocks, where the storage told its time.
fn clock(ahead: i64) -> Finding {
    const NAME: &str = "clock";
    const WHY: &str = "signatures and credentials hold a time, and are refused when it is far off";
    let off = ahead.unsigned_abs();
    let side = if ahead > 0 { "behind" } else { "ahead of" };
    let detail = format!("{off} s {side} that of the storage");
    let fix = "timedatectl set-ntp true";
    match off {
        0 => Finding::pass(NAME, "as that of the storage, as far as it tells"),
        off if off < CLOCK_OFF_MAX => Finding::warn(NAME, detail).because(WHY, fix),
        _ => Finding::fail(NAME, detail).because(WHY, fix),
    }
}

/// Asks a running mount how it is.
fn of_mount(daemon: &Record, status: &types::Result<wire::Status>) -> Vec<Finding> {
    const WHY: &str = "whoever reads from it waits or fails";
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            let fix = format!("forebay umount --force {}", daemon.mount_point.display());
            return vec![Finding::fail("daemon", error.to_string()).because(WHY, fix)];
        }
    };
    let mut findings = vec![Finding::pass(
        "daemon",
        format!("pid {} answers", status.pid),
    )];
    for mount in &status.mounts {
        findings.push(match &mount.fault {
            None => Finding::pass("storage", format!("{} answers", mount.uri)),
            Some(fault) => Finding::fail("storage", format!("{}: {fault}", mount.uri))
                .because(WHY, format!("forebay doctor {}", mount.uri)),
        });
    }
    if let Some(reason) = &status.cache.retired {
        findings.push(Finding::fail("cache in use", reason.clone()).because(
            "everything is fetched each time it is read",
            "mend or replace the disk, and mount again",
        ));
    }
    if let Some(reason) = &status.kernel.passthrough.reason {
        findings.push(Finding::warn("passthrough in use", reason.clone()).because(
            "reads of cached files are copied through the daemon",
            "run as root on Linux 6.9 or newer",
        ));
    }
    let (used, budget) = (status.memory.used_bytes, status.memory.budget_bytes);
    let memory = format!("{} of {}", ByteSize(used), ByteSize(budget));
    findings.push(Finding::pass("memory in use", memory));
    if let Some(failing) = &status.staged.failing {
        findings.push(Finding::fail("not stored", failing.clone()).because(
            "what was written is on this machine only",
            "forebay staged list",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_well_off_or_wrong() {
        assert_eq!(clock(0).verdict, Verdict::Pass);
        assert_eq!(clock(-120).verdict, Verdict::Warn);
        let wrong = clock(7200);
        assert_eq!(wrong.verdict, Verdict::Fail);
        assert!(
            line(&wrong).contains("7200 s behind that of the storage"),
            "{}",
            line(&wrong)
        );
        assert!(
            line(&wrong).contains("fix: timedatectl"),
            "{}",
            line(&wrong)
        );
    }

    #[test]
    fn the_host_of_a_storage_is_asked_for() {
        let of = |uri: &str, endpoint: Option<&str>| {
            let mut plan = MountPlan::with_defaults(String::new(), uri.to_owned());
            plan.options
                .extend(endpoint.map(|it| ("endpoint".to_owned(), it.to_owned())));
            names(&plan).map(|finding| (finding.verdict, finding.detail))
        };
        assert_eq!(of("s3://b", None), None);
        let (verdict, detail) = of("s3://b", Some("http://127.0.0.1:9000")).unwrap();
        assert_eq!(
            (verdict, detail.as_str()),
            (Verdict::Pass, "127.0.0.1 is 127.0.0.1")
        );
        let (verdict, _) = of("hdfs://no-such-host.invalid:9000/x", None).unwrap();
        assert_eq!(verdict, Verdict::Fail);
    }

    #[test]
    fn what_a_running_mount_suffers_from_is_told() {
        let daemon =
            Record::of_self(Path::new("/run/x"), Path::new("/m"), Vec::new(), None).unwrap();
        let mut status = wire::Status::default();
        status.mounts.push(wire::Mount {
            uri: "s3://b/".into(),
            fault: Some("no answer".into()),
            ..wire::Mount::default()
        });
        status.cache.retired = Some("disk broke".into());
        let found = of_mount(&daemon, &Ok(status));
        let failed: Vec<_> = found
            .iter()
            .filter(|one| one.verdict == Verdict::Fail)
            .collect();
        let names: Vec<_> = failed.iter().map(|one| one.name).collect();
        assert_eq!(names, ["storage", "cache in use"]);
        assert!(
            failed
                .iter()
                .all(|one| one.fix.is_some() && one.why.is_some())
        );
    }
}
