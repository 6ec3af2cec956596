# SPDX-License-Identifier: Apache-2.0
"""What each job is: its data set, how it is read, and from how far away.

Everything that makes a figure comparable with another run's stands here, and in the result.
"""

import dataclasses
import os
import pathlib
import sys

MB = 1_000_000
# What `--preset training` stands for.
TRAINING = ("--read-only", "--freshness", "immutable")


@dataclasses.dataclass
class Work:
    """One way to read a data set."""

    name: str
    # The folder of the data set that it reads.
    below: str
    # Settings of the program's `read`.
    read: dict
    # The figure that is compared with the local disk, and whether less of it is better.
    headline: str
    is_time: bool = False
    # Flags of `forebay mount`.
    flags: tuple = TRAINING


@dataclasses.dataclass
class Plan:
    """A job: one data set, and the works that read it."""

    job: str
    # The program in `jobs`, and the virtual environment of `scripts/setup` that it runs in.
    program: str
    environment: str
    prepare: dict
    works: list
    latency_ms: int
    bandwidth: float
    # What a reader of the table must know.
    notes: list
    # In place of that bandwidth: a share of what the job eats from the local disk, measured first.
    bandwidth_share: float | None = None
    # Flags of the mount without a cache.
    uncached: tuple = ()
    # What the job can compute at most, in the unit of its headline; none where it computes nothing.
    ceiling: float | None = None


def tensorflow(quick, model):
    checkout = os.environ.get("TF_CNN_BENCHMARKS", "")
    if checkout and not (pathlib.Path(checkout) / "tf_cnn_benchmarks.py").is_file():
        sys.exit(f"error: no tf_cnn_benchmarks.py in TF_CNN_BENCHMARKS={checkout}")
    what = f"tf_cnn_benchmarks, {model}" if checkout else "input pipeline of ours"
    notes = [
        "fill s: from the start of the pipeline until the first batch is done, for which up to "
        "10,000 records are shuffled",
        "images/s: after that, as the benchmark prints it",
        "job s: both, the time that somebody waits",
    ]
    if not checkout:
        notes.append(
            "TF_CNN_BENCHMARKS names no checkout: a pipeline of the same shape is measured"
        )
    read = {"model": model, "batch": 64, "batches": 100, "checkout": checkout}
    prepare = {"images": 10_240, "shards": 64}
    latency_ms, bandwidth, share, uncached = 10, 40.0 * MB, None, ()
    if model == "alexnet":
        # More than the shuffle buffer and all batches hold, so that nothing is read for a second
        # time, and more batches than ten open files have been read ahead for.
        prepare, read = prepare | {"images": 15_360}, read | {"batches": 60}
        share = 0.5
        # Its 16 MiB ahead of each of the thirty files that TensorFlow opens ahead are half a GB in
        # memory, more than all of these batches: a cache that no real data set would fit into.
        uncached = ("--buffer-size=1Mi",)
        notes.append(
            "scaled: the storage gives half of the bytes that this model ate from the local disk "
            "in the first reading, the relation of a fast accelerator to a remote storage"
        )
    if quick:
        prepare = {"images": 128, "shards": 16}
        read |= {"batch": 16, "batches": 8}
    return Plan(
        job="tensorflow",
        program="records",
        environment="training-tensorflow" if checkout else "tensorflow",
        prepare=prepare,
        works=[Work(what, "", read, "images/s")],
        latency_ms=latency_ms,
        bandwidth=bandwidth,
        bandwidth_share=share,
        uncached=uncached,
        notes=notes,
    )


def pytorch(quick, _model):
    images, batch_ms = (4_000, 100.0) if not quick else (200, 5.0)
    read = {"batch": 64, "batch_ms": batch_ms, "workers": 4, "epoch": 0}
    works = [
        Work("ImageFolder, random order", "folder", read | {"kind": "folder"}, "images/s"),
        Work("WebDataset shards", "shards", read | {"kind": "shards"}, "images/s"),
        Work("Parquet, random groups", "parquet", read | {"kind": "parquet"}, "images/s"),
    ]
    return Plan(
        job="pytorch",
        program="loaders",
        environment="training-pytorch",
        prepare={"images": images, "shard": images // 8},
        works=works,
        latency_ms=15,
        bandwidth=200.0 * MB,
        notes=[
            f"emulated: a batch of 64 images keeps the accelerator busy for {batch_ms:g} ms; "
            "nothing is computed or decoded",
            "busy %: the share of the epoch in which the accelerator does not wait",
        ],
        ceiling=64 / (batch_ms / 1000),
    )


def lmdb(quick, _model):
    works = [
        Work("Caffe's LMDB calls, read-only mount", "", {}, "records/s"),
        Work("Caffe's LMDB calls, writable mount", "", {}, "records/s", flags=()),
        Work("Caffe's LMDB calls, in back", "", {}, "records/s", flags=("--write-mode", "back")),
    ]
    return Plan(
        job="lmdb",
        program="caffe_data",
        environment="programs",
        prepare={"records": 5_000 if not quick else 100},
        works=works,
        latency_ms=15,
        bandwidth=200.0 * MB,
        notes=[
            "a record: 3 x 256 x 256 bytes and a label; every byte is summed",
            "open s, close s: of the environment and its lock file, once for a job",
        ],
    )


def checkpoints(quick, _model):
    return Plan(
        job="checkpoints",
        program="weights",
        environment="programs",
        prepare={"tensors": 64 if not quick else 4},
        works=[Work("safetensors by mmap", "", {}, "all s", is_time=True)],
        latency_ms=15,
        bandwidth=200.0 * MB,
        notes=["first s, all s: until every byte of the first tensor, of all tensors was touched"],
    )


def dlio(quick, _model):
    # What the workload says of an H100 and its files.
    workload = {"workload": "resnet50_h100", "samples": 1_251}
    files, read = 12, workload | {"batch": 400, "batch_s": 0.224, "epochs": 3}
    if quick:
        workload |= {"samples": 100}
        files, read = 4, read | workload | {"batch": 50, "batch_s": 0.028}
    # The images that it generates are square, of 114,660 bytes at most.
    wanted = read["batch"] * 338 * 338 / read["batch_s"]
    return Plan(
        job="dlio",
        program="dlio",
        environment="training-dlio",
        prepare=workload | {"files": files},
        works=[Work("DLIO, resnet50 on an H100", "", read, "AU 1 %")],
        latency_ms=15,
        bandwidth=100.0 * MB,
        notes=[
            f"emulated: a batch of {read['batch']} images keeps the accelerator busy for "
            f"{1000 * read['batch_s']:g} ms, which eats {wanted / MB:.0f} MB/s; nothing is decoded",
            f"scaled: {files} files of the 1,024 that this workload has, and a storage that gives "
            "half of what the accelerator eats",
            "AU 1 %: DLIO's accelerator utilization in epoch 1, of which 90 are to be reached",
            "images/s: in epoch 1; later epochs find in memory what the kernel kept of it",
        ],
        ceiling=read["batch"] / read["batch_s"],
    )


PLANS = {
    "tensorflow": tensorflow,
    "pytorch": pytorch,
    "lmdb": lmdb,
    "checkpoints": checkpoints,
    "dlio": dlio,
}
