# SPDX-License-Identifier: Apache-2.0
"""Measures a training job that reads from the local disk, from a remote storage without a cache,
and from Forebay, cold and warm, all in one run.

The storage is a real S3 server behind a relay that gives it the latency and the bandwidth of a
remote one. Kernel caches are dropped before each reading. What every reading read is compared.
"""

import argparse
import contextlib
import filecmp
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

import plot
import report
from mounts import Forebay, drop_kernel_caches, uncached, version_of_rclone
from plans import PLANS
from rig import Rig

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LOCAL, REMOTE, COLD, WARM = CONTESTANTS = (
    "local disk",
    "remote, no cache",
    "forebay, cold",
    "forebay, warm",
)


def arguments():
    parser = argparse.ArgumentParser(prog="bench/training/run", description=__doc__)
    parser.add_argument("job", choices=PLANS)
    parser.add_argument(
        "--quick", action="store_true", help="a small data set, to see that it works"
    )
    parser.add_argument("--model", default="trivial", help="of tf_cnn_benchmarks [trivial]")
    parser.add_argument("--data", type=pathlib.Path, help="a data set of yours in place of ours")
    parser.add_argument("--images", type=int, help="in our data set, where it is one of images")
    parser.add_argument("--work", help="only the work whose name has this in it")
    parser.add_argument("--latency", type=int, metavar="MS", help="of the storage")
    parser.add_argument("--bandwidth", type=float, metavar="MB/s", help="of the storage")
    parser.add_argument("--repeats", type=int, default=3, help="of local and warm readings [3]")
    parser.add_argument("--cache-share", type=float, metavar="PART", help="of the data, at most")
    parser.add_argument("--flag", action="append", default=[], help="one more of forebay mount")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release")
    parser.add_argument("--python", type=pathlib.Path, help="the interpreter of the job")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "bench/results")
    return parser.parse_args()


def environment(name):
    """Returns the interpreter of a virtual environment that scripts/setup made."""
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "forebay" / name / "bin/python"


class Run:
    """One job on this machine."""

    def __init__(self, given, plan, rig, folder):
        self.given, self.plan, self.rig, self.folder = given, plan, rig, folder
        self.python = given.python or environment(plan.environment)
        self.local = given.data or folder / "local"
        self.rows, self.epoch = [], 0

    def prepare(self):
        if not self.given.data:
            say("preparing the data set")
            self.program("prepare", self.local, self.plan.prepare)
        self.files = files_of(self.local)
        self.size = self.rig.put(self.local.resolve())
        self.rig.set_speed(self.plan.latency_ms, self.plan.bandwidth)

    def program(self, verb, folder, settings):
        """Runs a half of the job; returns what it says at its end."""
        words = [f"{name}={value}" for name, value in settings.items()]
        command = [self.python, HERE / "jobs" / f"{self.plan.program}.py", verb, folder, *words]
        quiet = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=quiet, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"error: {self.plan.program} {verb}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1]) if verb == "read" else None

    def reading(self, work, contestant, root, fetched=lambda: None):
        """Returns the figures of one reading, with what it cost the storage."""
        say(f"{work.name}: {contestant}")
        settings = dict(work.read)
        if "epoch" in settings:
            self.epoch += 1
            settings["epoch"] = self.epoch
        # It would drop the packages of the job as well, whose start is most of a quick run.
        if not self.given.quick:
            drop_kernel_caches()
        before, fetched_before = self.rig.requests(), fetched()
        figures = self.program("read", root / work.below, settings)
        figures["requests"] = self.rig.requests() - before
        figures["fetched MB"] = None
        if fetched_before is not None:
            figures["fetched MB"] = (fetched() - fetched_before) / 1e6
        return figures

    def work(self, work):
        """Reads from everywhere; warm readings take turns with those of the local disk."""
        readings = {name: [] for name in CONTESTANTS}
        forebay = Forebay(self.given.bin / "forebay", self.rig, self.folder / "mounts")
        names = [name for name in self.files if name.is_relative_to(work.below)]
        size = sum((self.local / name).stat().st_size for name in names)

        def read(name, root, *more):
            readings[name].append(self.reading(work, name, root, *more))

        if self.plan.bandwidth_share:
            read(LOCAL, self.local)
            self.scale(work, readings[LOCAL][0])
        with forebay.mounted(*work.flags, *self.room(size), *self.given.flag) as point:
            read(COLD, point, forebay.fetched)
            compare(names, self.local, point)
            if not self.given.cache_share:
                forebay.wait_for_fills(size)
            for _ in range(self.given.repeats):
                read(LOCAL, self.local)
                read(WARM, point, forebay.fetched)
            status = forebay.status()
            self.version = f"{status['version']} over {status['kernel']['transport']}"
        forebay.forget()
        with uncached(self.rig, self.folder / "mounts", self.plan.uncached) as point:
            read(REMOTE, point)
        shutil.rmtree(self.folder / "mounts")
        (self.folder / "mounts").mkdir()
        self.rows += rows_of(work, readings)

    def scale(self, work, local):
        """Makes the storage as slow as the plan says beside what the job ate from the disk."""
        image = self.size / self.plan.prepare["images"]
        eaten = local[work.headline] * image
        self.plan.bandwidth = self.plan.bandwidth_share * eaten
        self.rig.set_speed(self.plan.latency_ms, self.plan.bandwidth)

    def room(self, size):
        """Returns the flags that size the cache: for all that there is, or for a share of it."""
        share = self.given.cache_share
        room = size * share if share else 2 * size + (256 << 20)
        return ["--cache-size", f"{int(room) >> 10}KiB"]

    def result(self):
        """Returns everything that somebody needs to compare this run with another one."""
        plan = self.plan
        return {
            "job": plan.job,
            "quick": self.given.quick,
            "machine": report.machine(),
            "forebay": self.version,
            "uncached": version_of_rclone(),
            "storage": {"latency_ms": plan.latency_ms, "bandwidth": plan.bandwidth},
            "data": {"bytes": self.size} | plan.prepare,
            "repeats": self.given.repeats,
            "cache_share": self.given.cache_share,
            "notes": plan.notes,
            "ceiling": plan.ceiling,
            "works": [dataclass_of(work) for work in plan.works],
            "rows": self.rows,
        }


def dataclass_of(work):
    return {"name": work.name, "read": work.read, "flags": list(work.flags)}


def rows_of(work, readings):
    """Returns a row of medians for each place, with its ratio to the local disk."""
    sums = {one["sum"] for each in readings.values() for one in each if "sum" in one}
    if len(sums) > 1:
        sys.exit(f"error: {work.name}: not everybody read the same: {readings}")
    rows = []
    for name in CONTESTANTS:
        figures = {
            key: median([one[key] for one in readings[name]])
            for key in readings[name][0]
            if key != "sum"
        }
        rows.append({"work": work.name, "from": name, "n": len(readings[name])} | figures)
    local = rows[0][work.headline]
    for row in rows:
        ratio = row[work.headline] / local
        row["of local"] = 1 / ratio if work.is_time else ratio
    return rows


def median(figures):
    return None if None in figures else statistics.median(figures)


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def compare(names, local, mounted):
    """Ends the run when a mount shows other bytes than those that were put into the storage."""
    wrong = [name for name in names if not filecmp.cmp(local / name, mounted / name, shallow=False)]
    if wrong:
        sys.exit(f"error: the mount has other bytes in {wrong}")


def say(what):
    print(what, file=sys.stderr, flush=True)


def main():
    given = arguments()
    # So that what is mounted is unmounted also when somebody ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: ended by a signal"))
    plan = PLANS[given.job](given.quick, given.model)
    plan.latency_ms = plan.latency_ms if given.latency is None else given.latency
    if given.bandwidth is not None:
        plan.bandwidth, plan.bandwidth_share = given.bandwidth * 1e6, None
    if given.data and plan.bandwidth_share:
        sys.exit(f"error: say with --bandwidth how fast the storage of {given.data} is")
    if given.images:
        if "images" not in plan.prepare:
            sys.exit(f"error: --images: the data set of {given.job} is not one of images")
        plan.prepare["images"] = given.images
    plan.works = [work for work in plan.works if not given.work or given.work in work.name]
    if not plan.works:
        sys.exit(f"error: {given.job} has no work with '{given.work}' in its name")
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="training-")))
        (folder / "mounts").mkdir()
        rig = stack.enter_context(Rig(given.bin / "rig"))
        run = Run(given, plan, rig, folder)
        run.prepare()
        for work in plan.works:
            run.work(work)
        result = run.result()
    print(report.table(result))
    given.results.mkdir(parents=True, exist_ok=True)
    with (given.results / "training.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    picture = given.results / f"training-{given.job}.svg"
    picture.write_text(plot.bars(result, [(work.name, work.headline) for work in plan.works]))
    say(f"also in {given.results / 'training.jsonl'} and {picture}")


if __name__ == "__main__":
    main()
