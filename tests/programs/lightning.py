# SPDX-License-Identifier: Apache-2.0
"""LMDB, whose processes share a lock file in memory: written plainly and through a mapping."""

import lmdb
from program import at_once, run

KEYS = 300
SIZE = 4 << 20


def key(process, number):
    return f"{process}/{number:06}".encode()


def value(number):
    return f"value {number} ".encode() * (1 + number % 60)


def write(folder, process, is_mapped):
    with lmdb.open(str(folder), map_size=SIZE, writemap=is_mapped, max_readers=8) as store:
        for start in range(0, KEYS, 50):
            with store.begin(write=True) as change:
                for number in range(start, start + 50):
                    change.put(key(process, number), value(number))


def read(folder):
    """Sees whole transactions only, while others write."""
    with lmdb.open(str(folder), map_size=SIZE, max_readers=8) as store:
        for _ in range(50):
            with store.begin() as view:
                assert view.stat()["entries"] % 50 == 0


def make(folder):
    for is_mapped in (False, True):
        at = folder / f"mapped-{is_mapped}"
        at.mkdir()
        write(at, 0, is_mapped)
        at_once((write, at, 1, is_mapped), (write, at, 2, is_mapped), (read, at))
        with (
            lmdb.open(str(at), map_size=SIZE, writemap=is_mapped) as store,
            store.begin(write=True) as change,
        ):
            for number in range(0, KEYS, 2):
                change.delete(key(0, number))


def check(folder):
    for is_mapped in (False, True):
        at = folder / f"mapped-{is_mapped}"
        wanted = {
            key(process, number): value(number)
            for process in range(3)
            for number in range(KEYS)
            if process > 0 or number % 2 == 1
        }
        with (
            lmdb.open(str(at), map_size=SIZE, readonly=True, lock=False) as store,
            store.begin() as view,
        ):
            assert dict(view.cursor()) == wanted, at


if __name__ == "__main__":
    run(make, check)
