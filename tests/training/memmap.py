# SPDX-License-Identifier: Apache-2.0
"""NumPy: rows of one large array, read in random order through a memory mapping."""

import numpy
from job import digest, run

ROWS = 3_000
WIDTH = 2_048


def prepare(folder):
    folder.mkdir(parents=True, exist_ok=True)
    tokens = numpy.random.default_rng(3).integers(0, 50_000, (ROWS, WIDTH), dtype=numpy.uint32)
    tokens.tofile(folder / "tokens.bin")
    for index, row in enumerate(tokens):
        yield index, digest(row.tobytes())


def epoch(folder, number):
    tokens = numpy.memmap(folder / "tokens.bin", numpy.uint32, mode="r", shape=(ROWS, WIDTH))
    for index in numpy.random.default_rng(number).permutation(ROWS):
        yield int(index), digest(tokens[index].tobytes())


if __name__ == "__main__":
    run(prepare, epoch)
