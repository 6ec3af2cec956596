// SPDX-License-Identifier: Apache-2.0
//! What the machine offers to a mount: the kernel's features, rights, and limits.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use types::ByteSize;

use super::Finding;

/// Numbers of the device that mounts go through.
const FUSE_DEVICE: (u32, u32) = (10, 229);
/// The first Linux whose kernel reads cache files itself, and the first with FUSE over io_uring.
const PASSTHROUGH_SINCE: (u32, u32) = (6, 9);
const URING_SINCE: (u32, u32) = (6, 14);
/// Pages of the largest request, of 4 KiB each.
const PAGES: u64 = 256;
/// With fewer open files jobs that read in parallel fail, and with fewer than the second the kernel
/// can hold less than most data sets have.
const FILES_MIN: u64 = 1024;
const FILES_GOOD: u64 = 65_536;
/// The memory that a daemon takes unless told otherwise, and what leaves room for a job.
const MEMORY_MIN: u64 = 200 << 20;
const MEMORY_GOOD: u64 = 512 << 20;

/// Looks at the machine.
pub(super) fn findings() -> Vec<Finding> {
    let release = kernel();
    let is_privileged = is_privileged();
    vec![
        device(Path::new("/dev/fuse")),
        right_to_mount(is_privileged),
        passthrough(release, is_privileged),
        uring(release),
        request_size(),
        read_ahead(),
        other_users(),
        open_files(getrlimit(Resource::Nofile).maximum),
        memory(memory_limit()),
    ]
}

fn device(path: &Path) -> Finding {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    const NAME: &str = "fuse device";
    const WHY: &str = "without it nothing can be mounted";
    let shown = path.display();
    let absent = |detail: String| {
        Finding::fail(NAME, detail).because(
            WHY,
            "modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN",
        )
    };
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => return absent(format!("{shown}: {error}")),
    };
    let device = meta.rdev();
    let numbers = (rustix::fs::major(device), rustix::fs::minor(device));
    if !meta.file_type().is_char_device() || numbers != FUSE_DEVICE {
        return absent(format!("{shown} is not the device of FUSE"));
    }
    match fs::File::options().read(true).write(true).open(path) {
        Ok(_) => Finding::pass(NAME, format!("{shown} opens")),
        Err(error) => Finding::fail(NAME, format!("{shown}: {error}"))
            .because(WHY, format!("chmod 666 {shown}, as distributions set it")),
    }
}

fn is_privileged() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

fn right_to_mount(is_privileged: bool) -> Finding {
    const NAME: &str = "right to mount";
    if is_privileged {
        return Finding::pass(NAME, "CAP_SYS_ADMIN");
    }
    let helper = ["fusermount3", "fusermount"]
        .iter()
        .find_map(|name| found_in_path(name));
    match helper {
        Some(helper) => Finding::warn(NAME, format!("no CAP_SYS_ADMIN; {helper} mounts")).because(
            "reads of cached files are copied through the daemon, which costs processor time",
            "run as root, or in a container with --cap-add SYS_ADMIN",
        ),
        None => Finding::fail(NAME, "no CAP_SYS_ADMIN, and no fusermount3 in PATH").because(
            "an ordinary user mounts with the help of fusermount3",
            "apt-get install fuse3, or run as root",
        ),
    }
}

fn found_in_path(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let mut dirs = std::env::split_paths(&path);
    dirs.find_map(|dir| {
        let file = dir.join(name);
        file.is_file().then(|| file.display().to_string())
    })
}

/// Returns version and subversion of the kernel.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    parsed(&name.release().to_string_lossy()).unwrap_or((0, 0))
}

fn parsed(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn passthrough(release: (u32, u32), is_privileged: bool) -> Finding {
    const NAME: &str = "passthrough";
    const WHY: &str = "the kernel could read files that are cached whole by itself, at disk speed";
    let (major, minor) = release;
    match (release >= PASSTHROUGH_SINCE, is_privileged) {
        (true, true) => Finding::pass(NAME, format!("Linux {major}.{minor}, and CAP_SYS_ADMIN")),
        (true, false) => {
            Finding::warn(NAME, "off without CAP_SYS_ADMIN").because(WHY, "mount as root")
        }
        (false, _) => Finding::warn(NAME, format!("not in Linux {major}.{minor}"))
            .because(WHY, "use Linux 6.9 or newer"),
    }
}

fn uring(release: (u32, u32)) -> Finding {
    const NAME: &str = "requests over io_uring";
    const WHY: &str = "it makes metadata and small files cheaper";
    const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";
    let (major, minor) = release;
    if fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|text| text.trim() == "2")
    {
        return Finding::warn(NAME, "io_uring is switched off on this machine")
            .because(WHY, "sysctl kernel.io_uring_disabled=0");
    }
    match fs::read_to_string(SWITCH) {
        Ok(text) if text.trim() == "Y" => Finding::pass(NAME, "offered"),
        Ok(_) => Finding::warn(NAME, "the kernel knows it and does not offer it")
            .because(WHY, format!("echo Y > {SWITCH}")),
        Err(_) if release >= URING_SINCE => Finding::warn(NAME, "this kernel was built without it")
            .because(WHY, "use another kernel"),
        Err(_) => Finding::warn(NAME, format!("not in Linux {major}.{minor}"))
            .because(WHY, "use Linux 6.14 or newer"),
    }
}

fn request_size() -> Finding {
    const NAME: &str = "size of requests";
    // Older kernels have no such file, and this limit.
    let text = fs::read_to_string("/proc/sys/fs/fuse/max_pages_limit");
    let limit = text.ok().and_then(|text| text.trim().parse::<u64>().ok());
    match limit.unwrap_or(PAGES) {
        pages if pages >= PAGES => Finding::pass(NAME, "1 MiB"),
        pages => Finding::warn(NAME, ByteSize(pages * 4096).to_string()).because(
            "small requests make large reads slow",
            format!("sysctl fs.fuse.max_pages_limit={PAGES}"),
        ),
    }
}

/// Looks whether a mount can have the kernel read further ahead than it begins with.
fn read_ahead() -> Finding {
    const NAME: &str = "read-ahead of the kernel";
    const WHY: &str =
        "with the 128 KiB that the kernel begins with, large files are read more slowly";
    const FIX: &str = "mount as root, where /sys can be written (a container: --privileged)";
    let mut devices = fs::read_dir("/sys/class/bdi")
        .into_iter()
        .flatten()
        .flatten();
    // To open it changes nothing.
    let opened = devices.next().map(|device| {
        let file = device.path().join("read_ahead_kb");
        fs::File::options().write(true).open(file)
    });
    match opened {
        Some(Ok(_)) => Finding::pass(NAME, "a mount raises it"),
        Some(Err(error)) => {
            Finding::warn(NAME, format!("cannot be raised: {error}")).because(WHY, FIX)
        }
        None => Finding::warn(NAME, "/sys/class/bdi does not show it").because(WHY, FIX),
    }
}

fn other_users() -> Finding {
    const NAME: &str = "other users";
    let is_root = rustix::process::geteuid().is_root();
    let text = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let is_allowed = text.lines().any(|line| line.trim() == "user_allow_other");
    match (is_root, is_allowed) {
        (true, _) => Finding::pass(NAME, "root may mount with --allow-other"),
        (false, true) => Finding::pass(NAME, "user_allow_other is set in /etc/fuse.conf"),
        (false, false) => Finding::warn(NAME, "user_allow_other is not set").because(
            "with it --allow-other lets other users of this machine read the mount",
            "echo user_allow_other | sudo tee -a /etc/fuse.conf",
        ),
    }
}

fn open_files(limit: Option<u64>) -> Finding {
    const NAME: &str = "open files";
    const WHY: &str = "each file that is read at a time takes one, and its opens fail without";
    const FIX: &str = "raise the hard limit: LimitNOFILE=1048576 of a service, 'ulimit -Hn 1048576' \
                       of a shell, or /etc/security/limits.conf";
    match limit {
        None => Finding::pass(NAME, "no limit"),
        Some(limit) if limit < FILES_MIN => {
            Finding::fail(NAME, format!("at most {limit}")).because(WHY, FIX)
        }
        Some(limit) if limit < FILES_GOOD => {
            Finding::warn(NAME, format!("at most {limit}")).because(WHY, FIX)
        }
        Some(limit) => Finding::pass(NAME, format!("up to {limit}")),
    }
}

/// Returns how much memory this process may take: what is available, or the limit of a group of
/// processes that it is in.
fn memory_limit() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = info.totalram.saturating_mul(u64::from(info.mem_unit));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = own.lines().find_map(|line| line.strip_prefix("0::"));
    let paths = group.map(|group| format!("/sys/fs/cgroup{}", group.trim_end_matches('/')));
    let mut limit = machine;
    for dir in paths.iter().flat_map(|path| Path::new(path).ancestors()) {
        let text = fs::read_to_string(dir.join("memory.max"));
        if let Some(bytes) = text.ok().and_then(|text| text.trim().parse().ok()) {
            limit = limit.min(bytes);
        }
    }
    let old = fs::read_to_string("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    let old = old.ok().and_then(|text| text.trim().parse().ok());
    limit.min(old.unwrap_or(limit))
}

fn memory(limit: u64) -> Finding {
    const NAME: &str = "memory";
    const WHY: &str = "a daemon takes 200 MiB unless told otherwise, and is killed above a limit";
    let detail = format!("up to {}", ByteSize(limit));
    let fix = "raise the limit of the container or service, or mount with a smaller --memory";
    match limit {
        limit if limit < MEMORY_MIN => Finding::fail(NAME, detail).because(WHY, fix),
        limit if limit < MEMORY_GOOD => Finding::warn(NAME, detail).because(WHY, fix),
        _ => Finding::pass(NAME, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Fail, Pass, Warn};
    use super::*;

    #[test]
    fn releases_are_read_as_kernels_tell_them() {
        assert_eq!(parsed("6.18.5-amd64"), Some((6, 18)));
        assert_eq!(parsed("6.9"), Some((6, 9)));
        assert_eq!(parsed("odd"), None);
    }

    #[test]
    fn what_is_missing_fails_and_what_could_be_better_warns() {
        let limits = [Some(64), Some(4096), Some(1 << 20), None].map(|it| open_files(it).verdict);
        assert_eq!(limits, [Fail, Warn, Pass, Pass]);
        let limits = [100 << 20, 300 << 20, 8 << 30].map(|it| memory(it).verdict);
        assert_eq!(limits, [Fail, Warn, Pass]);
        assert_eq!(passthrough((6, 18), true).verdict, Pass);
        assert_eq!(passthrough((6, 18), false).verdict, Warn);
        assert_eq!(passthrough((6, 1), true).verdict, Warn);
        assert_eq!(device(Path::new("/dev/null")).verdict, Fail);
        assert_eq!(device(Path::new("/dev/nothing")).verdict, Fail);
        assert!(
            findings()
                .iter()
                .all(|one| (one.verdict == Pass) == one.fix.is_none())
        );
    }
}
