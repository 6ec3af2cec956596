# SPDX-License-Identifier: Apache-2.0
"""Weights in safetensors files, loaded by mmap: the time to the first tensor, and to all."""

import time

import numpy
from job import run
from safetensors import safe_open
from safetensors.numpy import save_file

TENSOR = 16 << 20
FILE = 16


def prepare(folder, tensors):
    """Writes files of 256 MiB, as large models are cut."""
    random = numpy.random.default_rng(5)
    count = int(tensors)
    for start in range(0, count, FILE):
        names = range(start, min(start + FILE, count))
        rows = {
            f"layer.{number:04}.weight": random.integers(
                0, 1 << 16, (4096, TENSOR // 8192), dtype=numpy.uint16
            )
            for number in names
        }
        save_file(rows, folder / f"model-{start // FILE:05}.safetensors")


def read(folder):
    first, size, total = None, 0, 0
    start = time.monotonic()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118  It is no dictionary.
                tensor = file.get_tensor(name)
                # Every byte is looked at: a mapping is read by touching it.
                total += int(tensor.reshape(-1).view(numpy.uint64).sum())
                size += tensor.nbytes
                first = first or time.monotonic() - start
    took = time.monotonic() - start
    return {
        "first s": first,
        "all s": took,
        "MB/s": size / 1e6 / took,
        "sum": total % (1 << 64),
    }


if __name__ == "__main__":
    run(prepare, read)
