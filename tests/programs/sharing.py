# SPDX-License-Identifier: Apache-2.0
"""Processes that share files: locks of both kinds, and many who append while others read."""

import fcntl
import os
import time

from program import at_once, run

KINDS = {"flock": fcntl.flock, "fcntl": fcntl.lockf}
TURNS = 40
WRITERS = 4
LINES = 60


def count(path, kind):
    """Adds to a number in a file, which only the lock keeps from getting lost."""
    for _ in range(TURNS):
        with open(path, "r+") as file:
            KINDS[kind](file, fcntl.LOCK_EX)
            number = int(file.read())
            file.seek(0)
            file.write(f"{number + 1:08}")
            file.flush()
            KINDS[kind](file, fcntl.LOCK_UN)


def refused(path, kind):
    """Returns whether another process may not have the lock now."""
    child = os.fork()
    if child == 0:
        with open(path, "r+") as file:
            try:
                KINDS[kind](file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os._exit(7)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 7), code
    return code == 7


def exclude(path, kind):
    with open(path, "r+") as file:
        KINDS[kind](file, fcntl.LOCK_EX)
        assert refused(path, kind), f"{kind}: two have the lock"
        KINDS[kind](file, fcntl.LOCK_UN)
        assert not refused(path, kind), f"{kind}: nobody has the lock"
        KINDS[kind](file, fcntl.LOCK_SH)
        assert refused(path, kind), f"{kind}: a shared lock keeps nobody out"
    assert not refused(path, kind), f"{kind}: the lock outlives its file"


def line(writer, number):
    return f"{writer} {number} {'x' * (number % 50)}.\n"


def append(path, writer):
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    for number in range(LINES):
        text = line(writer, number).encode()
        assert os.write(file, text) == len(text)
    os.close(file)


def follow(path):
    """Sees whole lines, in the order of each writer, and never less than before."""
    seen, deadline = b"", time.monotonic() + 60
    while seen.count(b"\n") < WRITERS * LINES:
        assert time.monotonic() < deadline, "lines are missing"
        with open(path, "rb") as file:
            now = file.read()
        assert now.startswith(seen), "what was read has changed"
        assert now == b"" or now.endswith(b"\n"), "a torn line"
        seen = now


def make(folder):
    for kind in KINDS:
        (folder / kind).write_text("00000000")
        exclude(folder / kind, kind)
        at_once(*[(count, folder / kind, kind)] * 2)
    log = folder / "log"
    log.touch()
    writers = [(append, log, writer) for writer in range(WRITERS)]
    at_once(*writers, (follow, log), (follow, log))


def check(folder):
    for kind in KINDS:
        assert (folder / kind).read_text() == f"{2 * TURNS:08}", kind
    lines = (folder / "log").read_text().splitlines(keepends=True)
    for writer in range(WRITERS):
        mine = [text for text in lines if text.startswith(f"{writer} ")]
        assert mine == [line(writer, number) for number in range(LINES)], writer
    assert len(lines) == WRITERS * LINES


if __name__ == "__main__":
    run(make, check)
