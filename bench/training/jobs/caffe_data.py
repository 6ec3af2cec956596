# SPDX-License-Identifier: Apache-2.0
"""Caffe: an LMDB that its data layer reads from end to end.

Where a `caffe` binary is installed, `caffe time` reads the set with a net of one data layer.
Everywhere else the same calls are made without it: an environment that is opened read-only without
thread-local readers but with its lock file, one read transaction, and a cursor that takes record
after record.
"""

import shutil
import subprocess
import tempfile
import time

import lmdb
import numpy
from job import run

# A Datum of 3 x 256 x 256 bytes, as ImageNet is usually converted.
SIDE = 256
COMMIT = 100


def datum(pixels, label):
    """Writes the message that Caffe reads: channels, height, width, data, label."""

    def varint(number):
        out = bytearray()
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        return bytes([*out, number])

    sizes = b"\x08" + varint(3) + b"\x10" + varint(SIDE) + b"\x18" + varint(SIDE)
    return sizes + b"\x22" + varint(len(pixels)) + pixels + b"\x28" + varint(label)


def prepare(folder, records):
    random = numpy.random.default_rng(4)
    count = int(records)
    room = count * SIDE * SIDE * 4 + (64 << 20)
    with lmdb.open(str(folder), map_size=room) as store:
        for start in range(0, count, COMMIT):
            with store.begin(write=True) as change:
                for number in range(start, min(start + COMMIT, count)):
                    value = datum(random.bytes(3 * SIDE * SIDE), number % 1000)
                    change.put(f"{number:08}".encode(), value, append=True)
    (folder / "lock.mdb").unlink()


def read(folder, batch="64"):
    if shutil.which("caffe"):
        return caffe(folder, int(batch))
    count = size = total = 0
    start = time.monotonic()
    with (
        lmdb.open(str(folder), readonly=True, lock=True, create=False) as store,
        store.begin(buffers=True) as view,
    ):
        opened = time.monotonic()
        for key, value in view.cursor():
            count, size = count + 1, size + len(value)
            total += int(numpy.frombuffer(value, numpy.uint8).sum()) * int(bytes(key))
        read = time.monotonic()
    closed, took = time.monotonic(), read - opened
    return {
        # Once for a job, however many epochs it reads.
        "open s": opened - start,
        "close s": closed - read,
        "read s": took,
        "records/s": count / took,
        "MB/s": size / 1e6 / took,
        "sum": total % (1 << 64),
    }


def caffe(folder, batch):
    """Has Caffe read the set once, in forward passes of a net that is nothing but its data."""
    with lmdb.open(str(folder), readonly=True, lock=False) as store:
        count = store.stat()["entries"]
    steps = max(1, count // batch)
    net = f"""
        layer {{
          name: "data" type: "Data" top: "data" top: "label"
          data_param {{ source: "{folder}" backend: LMDB batch_size: {batch} }}
        }}
    """
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(net)
        file.flush()
        start = time.monotonic()
        subprocess.run(
            ["caffe", "time", f"-model={file.name}", f"-iterations={steps}"],
            check=True,
            capture_output=True,
        )
        took = time.monotonic() - start
    size = steps * batch * 3 * SIDE * SIDE
    return {
        "read s": took,
        "records/s": steps * batch / took,
        "MB/s": size / 1e6 / took,
    }


if __name__ == "__main__":
    run(prepare, read)
