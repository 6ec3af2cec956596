# SPDX-License-Identifier: Apache-2.0
"""SQLite in each of its journal modes: transactions, rollbacks, two processes, and a vacuum."""

import contextlib
import sqlite3

from program import at_once, run

MODES = ["delete", "truncate", "persist", "memory", "wal"]
ROWS = 200
TURNS = 8


def opened(folder, mode):
    database = sqlite3.connect(folder / f"{mode}.db", timeout=60, isolation_level=None)
    told = database.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0]
    assert told == mode, f"journal mode {told} instead of {mode}"
    return contextlib.closing(database)


def body(number):
    return f"row {number} ".encode() * (1 + number % 40)


def insert(folder, mode, process):
    with opened(folder, mode) as database:
        for turn in range(TURNS):
            database.execute("BEGIN IMMEDIATE")
            database.execute("UPDATE counter SET value = value + 1")
            database.execute("INSERT INTO turns VALUES (?, ?)", (process, turn))
            database.execute("COMMIT")


def make(folder):
    for mode in MODES:
        with opened(folder, mode) as database:
            database.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, body BLOB)")
            database.execute("CREATE TABLE counter (value INTEGER)")
            database.execute("CREATE TABLE turns (process INTEGER, turn INTEGER)")
            database.execute("INSERT INTO counter VALUES (0)")
            database.execute("BEGIN")
            rows = ((number, body(number)) for number in range(ROWS))
            database.executemany("INSERT INTO rows VALUES (?, ?)", rows)
            database.execute("COMMIT")
            database.execute("BEGIN")
            database.execute("DELETE FROM rows")
            database.execute("ROLLBACK")
            database.execute("CREATE INDEX by_body ON rows (body)")
        at_once((insert, folder, mode, 1), (insert, folder, mode, 2))
        with opened(folder, mode) as database:
            database.execute("DELETE FROM rows WHERE number % 3 = 0")
            database.execute("VACUUM")


def check(folder):
    for mode in MODES:
        with contextlib.closing(sqlite3.connect(folder / f"{mode}.db")) as database:

            def all_of(query, database=database):
                return database.execute(query).fetchall()

            assert all_of("PRAGMA integrity_check") == [("ok",)], mode
            kept = [(n, body(n)) for n in range(ROWS) if n % 3]
            assert all_of("SELECT number, body FROM rows ORDER BY number") == kept, mode
            assert all_of("SELECT value FROM counter") == [(2 * TURNS,)], mode
            turns = [(process, turn) for process in (1, 2) for turn in range(TURNS)]
            assert all_of("SELECT * FROM turns ORDER BY process, turn") == turns, mode


if __name__ == "__main__":
    run(make, check)
