# SPDX-License-Identifier: Apache-2.0
"""SQLite: two processes that write one database, in each of its journal modes."""

import sqlite3
from contextlib import closing

from program import at_once, run

MODES = ["delete", "truncate", "persist", "wal"]
ROWS = 25


def connect(path):
    return closing(sqlite3.connect(path, timeout=60, isolation_level=None, uri=True))


def blob(writer, number):
    return bytes([writer + 1, number]) * 1_500


def write(path, mode, writer):
    with connect(path) as database:
        database.execute(f"pragma journal_mode={mode}")
        for number in range(ROWS):
            database.execute("begin immediate")
            row = (writer, number, blob(writer, number))
            database.execute("insert into rows values (?, ?, ?)", row)
            database.execute("commit")


def make(folder):
    for mode in MODES:
        path = folder / f"{mode}.db"
        with connect(path) as database:
            database.execute(f"pragma journal_mode={mode}")
            database.execute("create table rows (writer, number, bytes)")
        at_once(*[(write, path, mode, writer) for writer in range(2)])
        with connect(path) as database:
            # What changes and comes back.
            database.execute("begin")
            database.execute("delete from rows where number < 20")
            database.execute("rollback")
            database.execute("pragma journal_mode=delete")
            database.execute("vacuum")


def check(folder):
    for mode in MODES:
        # Nothing is to be written: the copy may be read-only.
        with connect(f"file:{folder / mode}.db?immutable=1") as database:
            assert database.execute("pragma integrity_check").fetchall() == [("ok",)], mode
            rows = database.execute("select * from rows order by writer, number").fetchall()
        expected = [(w, n, blob(w, n)) for w in range(2) for n in range(ROWS)]
        assert rows == expected, f"{mode}: {len(rows)} rows"


if __name__ == "__main__":
    run(make, check)
