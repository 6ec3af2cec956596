# SPDX-License-Identifier: Apache-2.0
"""HDF5 by h5py: made, appended to, and changed in place, each by an open of its own."""

import h5py
import numpy
from program import run

ROWS = 3000


def rows(seed, count=ROWS):
    return numpy.random.default_rng(seed).integers(0, 1 << 30, (count, 16), dtype=numpy.int64)


def make(folder):
    path = folder / "data.h5"
    with h5py.File(path, "w") as file:
        shape = {"maxshape": (None, 16), "chunks": (256, 16)}
        file.create_dataset("train/plain", data=rows(1), **shape)
        file.create_dataset("train/packed", data=rows(1), compression="gzip", **shape)
        file.create_dataset("fixed", data=rows(2))
        file.attrs["epoch"] = 1
    with h5py.File(path, "a") as file:
        for name in ("train/plain", "train/packed"):
            dataset = file[name]
            dataset.resize((2 * ROWS, 16))
            dataset[ROWS:] = rows(3)
        file["train"].create_dataset("later", data=rows(4, 10))
    with h5py.File(path, "r+") as file:
        file["fixed"][100:200] = rows(5, 100)
        file["train/plain"][5] = 7
        file.attrs["epoch"] = 2
        file.flush()


def check(folder):
    fixed, plain = rows(2), numpy.concatenate([rows(1), rows(3)])
    packed = plain.copy()
    fixed[100:200] = rows(5, 100)
    plain[5] = 7
    with h5py.File(folder / "data.h5", "r") as file:
        assert file.attrs["epoch"] == 2
        wanted = {
            "fixed": fixed,
            "train/plain": plain,
            "train/packed": packed,
            "train/later": rows(4, 10),
        }
        for name, content in wanted.items():
            assert numpy.array_equal(file[name][...], content), name


if __name__ == "__main__":
    run(make, check)
