# SPDX-License-Identifier: Apache-2.0
"""The two ways to mount the storage of a run: Forebay, and a mount that caches nothing."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import time

PATIENCE_S = 60


def until(what, holds):
    """Waits for a condition, not for a time."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {PATIENCE_S} s")
        time.sleep(0.02)


def drop_kernel_caches():
    """Empties the page cache, so that the next read comes from where the files are."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        print(f"kernel caches stay warm, which only root can change: {error}", flush=True)


class Forebay:
    """Forebay with a cache of its own below `folder`."""

    def __init__(self, binary, rig, folder):
        self.binary, self.rig, self.folder = str(binary), rig, folder
        self.point = folder / "forebay"
        self.point.mkdir()
        self.environment = rig.environment() | {
            "FOREBAY_RUN_DIR": str(folder / "run"),
            "FOREBAY_STATE_DIR": str(folder / "state"),
            "FOREBAY_LOG": str(folder / "forebay.log"),
            "FOREBAY_CACHE_DIR": str(folder / "cache"),
        }

    @contextlib.contextmanager
    def mounted(self, *flags):
        """Mounts the bucket for a block; yields the mount point."""
        self._run("mount", self.rig.uri, self.point, *self.rig.flags(), *flags)
        try:
            yield self.point
        finally:
            self._run("umount", self.point)

    def status(self):
        (daemon,) = json.loads(self._run("status", "--json"))["daemons"]
        return daemon

    def fetched(self):
        """Returns the bytes that have come from the storage."""
        return self.status()["cache"]["fetched_bytes"]

    def wait_for_fills(self, size):
        """Waits until so many bytes are cached: what was read is written to the disk behind it."""
        until("all is cached", lambda: self.status()["cache"]["used_bytes"] >= size)

    def forget(self):
        """Removes the cache, between two mounts."""
        shutil.rmtree(self.folder / "cache", ignore_errors=True)

    def _run(self, *words):
        command = [self.binary, *map(str, words)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"forebay {words[0]}: {done.stderr}")
        return done.stdout


@contextlib.contextmanager
def uncached(rig, folder, more):
    """Mounts the bucket with rclone and no cache, for a block; yields the mount point. `more` are
    flags of rclone."""
    point = folder / "rclone"
    point.mkdir()
    place = rig.place
    environment = os.environ | {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_ENDPOINT": place["endpoint"],
        "RCLONE_S3_REGION": place["region"],
        "RCLONE_S3_ACCESS_KEY_ID": place["access_key"],
        "RCLONE_S3_SECRET_ACCESS_KEY": place["secret_key"],
    }
    # It refuses to start with one, and what it speaks here is plain HTTP.
    environment.pop("AWS_CA_BUNDLE", None)
    # Names and times are remembered, as with Forebay: it is reading that is compared.
    flags = ["--read-only", "--vfs-cache-mode=off", "--dir-cache-time=1h", "--attr-timeout=1h"]
    flags += ["--use-server-modtime", "--no-checksum", "--quiet"]
    # Requests of the kernel that overtake each other look like seeks to it, and each seek is a new
    # GET: some 18 bytes came in for each one that was read through a mapping.
    flags += ["--async-read=false", *more]
    process = subprocess.Popen(
        ["rclone", "mount", f":s3:{place['bucket']}", str(point), *flags], env=environment
    )
    try:
        until("rclone has mounted", lambda: point.is_mount() or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError(f"rclone ended with {process.returncode}")
        yield point
    finally:
        subprocess.run(["fusermount3", "-u", str(point)], check=False)
        process.wait(PATIENCE_S)


def version_of_rclone():
    said = subprocess.run(["rclone", "version"], capture_output=True, text=True, check=True)
    return said.stdout.split("\n", 1)[0]
