// SPDX-License-Identifier: Apache-2.0
//! What is not well with a daemon, by what its status tells, and how to mend it.
//!
//! Each finding says what is wrong, why it matters and what to do, as `forebay doctor` does; that one
//! looks at the machine too, and takes longer. Pure: a status goes in, and nothing is asked.

use crate::wire::{Finding, Health, Mount, Status};

/// A cache that is nearly full evicts.
const FULL_PERCENT: u128 = 97;

/// Fewer answers than one in so many that ask to slow down are no trouble.
const THROTTLED_ONE_IN: u64 = 50;

const FAIL: &str = "fail";
const WARN: &str = "warn";

/// Returns how well a daemon is.
pub fn of(status: &Status) -> Health {
    let mut findings = Vec::new();
    storages(status, &mut findings);
    cache(status, &mut findings);
    writing(status, &mut findings);
    names(status, &mut findings);
    machine(status, &mut findings);
    findings.sort_by_key(|finding| finding.state != FAIL);
    let worst = findings.first().map(|finding| finding.state.clone());
    Health {
        mount_point: status.mount_point.clone(),
        state: worst.unwrap_or_else(|| "pass".to_owned()),
        findings,
    }
}

fn finding(state: &str, what: String, why: &str, fix: String) -> Finding {
    Finding {
        state: state.to_owned(),
        what,
        why: why.to_owned(),
        fix,
    }
}

fn storages(status: &Status, findings: &mut Vec<Finding>) {
    let point = &status.mount_point;
    for mount in &status.mounts {
        if let Some(fault) = &mount.fault {
            findings.push(finding(
                FAIL,
                format!("{} of {}: {fault}", mount.at, mount.uri),
                "only what is cached can be read; the rest fails",
                format!("forebay doctor {point}"),
            ));
        }
        if is_throttled(mount) {
            findings.push(finding(
                WARN,
                format!(
                    "{} of {} asked {} times to slow down",
                    mount.at, mount.uri, mount.requests.throttled
                ),
                "requests are sent again later, and readers wait",
                "run fewer cold readers at once, load what they need ahead with 'forebay load', or \
                 have the storage's limit raised"
                    .to_owned(),
            ));
        }
    }
}

fn is_throttled(mount: &Mount) -> bool {
    let throttled = mount.requests.throttled;
    throttled > 0 && throttled >= mount.requests.sum() / THROTTLED_ONE_IN
}

fn cache(status: &Status, findings: &mut Vec<Finding>) {
    let (cache, point) = (&status.cache, &status.mount_point);
    if let Some(reason) = &cache.retired {
        findings.push(finding(
            FAIL,
            format!("the cache in {} is no longer used: {reason}", cache.dir),
            "everything is read from the storages, and nothing can be written",
            format!(
                "mend the disk, or give another --cache-dir; then forebay umount {point} and mount again"
            ),
        ));
    }
    if cache.corrupt_pages > 0 {
        findings.push(finding(
            WARN,
            format!(
                "{} pages of the cache failed their checksum",
                cache.corrupt_pages
            ),
            "they were not served, but the disk may be failing",
            format!("forebay scrub {point}"),
        ));
    }
    let used = u128::from(cache.used_bytes) * 100;
    let is_full =
        cache.capacity_bytes > 0 && used >= u128::from(cache.capacity_bytes) * FULL_PERCENT;
    if is_full && cache.evictions > 0 {
        findings.push(finding(
            WARN,
            format!("the cache is full: {} objects were evicted", cache.evictions),
            "what is evicted is fetched again when it is read",
            "mount with a larger --cache-size, pin what matters with 'forebay pin', or drop what does \
             not with 'forebay free'"
                .to_owned(),
        ));
    }
    // What is in use of the cache and may still be used is what it was promised, unless others fill the
    // disk.
    let reach = u128::from(cache.used_bytes) + u128::from(cache.free_bytes);
    if cache.retired.is_none() && reach * 100 < u128::from(cache.capacity_bytes) * 90 {
        findings.push(finding(
            WARN,
            format!(
                "the disk of {} has less room than the cache may use",
                cache.dir
            ),
            "the cache stays smaller than it was meant to be",
            format!(
                "df -h {}; make room, or mount with a smaller --cache-size",
                cache.dir
            ),
        ));
    }
}

fn writing(status: &Status, findings: &mut Vec<Finding>) {
    if let Some(failing) = &status.staged.failing {
        findings.push(finding(
            FAIL,
            format!(
                "{} written files are not stored yet: {failing}",
                status.staged.files
            ),
            "they are on the local disk only",
            format!("forebay staged list --mount-point {}", status.mount_point),
        ));
    }
}

fn names(status: &Status, findings: &mut Vec<Finding>) {
    if status.names.left_out > 0 {
        findings.push(finding(
            WARN,
            format!(
                "{} names of the storages cannot be shown by a file system",
                status.names.left_out
            ),
            "programs do not see these objects",
            "look for names with empty parts, '.' or '..' in the storage, and give them others"
                .to_owned(),
        ));
    }
    if status.names.served_old > 0 {
        findings.push(finding(
            WARN,
            format!(
                "{} answers came from knowledge past its age",
                status.names.served_old
            ),
            "a storage did not answer in time; changes in it may have been missed",
            format!("forebay sync {}", status.mount_point),
        ));
    }
}

fn machine(status: &Status, findings: &mut Vec<Finding>) {
    let memory = &status.memory;
    if memory.budget_bytes > 0 && memory.used_bytes > memory.budget_bytes {
        findings.push(finding(
            WARN,
            "the daemon uses more memory than it may".to_owned(),
            "a container or a service with that limit would end it",
            "mount with a larger --memory".to_owned(),
        ));
    }
    let passthrough = &status.kernel.passthrough;
    if let Some(reason) = passthrough
        .reason
        .as_ref()
        .filter(|_| !passthrough.available)
    {
        findings.push(finding(
            WARN,
            format!("the kernel does not read cached files itself: {reason}"),
            "warm reads are copied through the daemon",
            format!("forebay doctor {}", status.mount_point),
        ));
    }
    let traces = status.traces.as_ref();
    if let Some((traces, fault)) = traces.and_then(|one| Some((one, one.fault.as_ref()?))) {
        findings.push(finding(
            WARN,
            format!("{} takes no traces: {fault}", traces.collector),
            "they are dropped until it does; nothing else suffers",
            "start the collector, or mount with another --traces".to_owned(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    fn well() -> Status {
        let mut status = Status {
            mount_point: "/mnt".into(),
            mounts: vec![Mount::default()],
            ..Status::default()
        };
        status.kernel.passthrough.available = true;
        (status.cache.capacity_bytes, status.cache.free_bytes) = (1000, 1000);
        status
    }

    #[test]
    fn a_daemon_that_is_well_has_nothing_to_tell() {
        let health = of(&well());
        assert_eq!((health.state.as_str(), health.findings.len()), ("pass", 0));
    }

    #[test]
    fn each_trouble_is_told_with_what_mends_it() {
        type Trouble = fn(&mut Status);
        let troubles: [(&str, &str, Trouble); 11] = [
            ("fail", "doctor", |status| {
                status.mounts[0].fault = Some("gone".into());
            }),
            ("warn", "load", |status| {
                status.mounts[0].requests.throttled = 1;
            }),
            ("fail", "--cache-dir", |status| {
                status.cache.retired = Some("I/O error".into());
            }),
            ("warn", "scrub", |status| status.cache.corrupt_pages = 1),
            ("warn", "--cache-size", |status| {
                (status.cache.used_bytes, status.cache.evictions) = (990, 1);
            }),
            ("warn", "df -h", |status| status.cache.free_bytes = 100),
            ("fail", "staged list", |status| {
                status.staged.failing = Some("'/a': full".into());
            }),
            ("warn", "names", |status| status.names.left_out = 1),
            ("warn", "sync", |status| status.names.served_old = 1),
            ("warn", "--traces", |status| {
                status.traces = Some(wire::Traces {
                    fault: Some("no connection".into()),
                    ..wire::Traces::default()
                });
            }),
            ("warn", "--memory", |status| {
                status.memory = wire::Memory {
                    used_bytes: 2,
                    budget_bytes: 1,
                    ..wire::Memory::default()
                };
            }),
        ];
        for (state, fix, trouble) in troubles {
            let mut status = well();
            trouble(&mut status);
            let health = of(&status);
            assert_eq!(health.findings.len(), 1, "{health:?}");
            assert_eq!(health.state, state, "{health:?}");
            assert!(health.findings[0].fix.contains(fix), "{health:?}");
        }
    }

    #[test]
    fn the_worst_comes_first() {
        let mut status = well();
        status.kernel.passthrough.available = false;
        status.kernel.passthrough.reason = Some("no".into());
        status.staged.failing = Some("x".into());
        let states: Vec<_> = of(&status)
            .findings
            .into_iter()
            .map(|it| it.state)
            .collect();
        assert_eq!(states, ["fail", "warn"]);
    }
}
