# SPDX-License-Identifier: Apache-2.0
"""The frame of a program that keeps its files in a folder.

`NAME.py make FOLDER` writes them. `NAME.py check FOLDER` checks all that was written, and changes
nothing of it; it is run on the mount, and on a copy that the storage's own client made.
"""

import multiprocessing
import pathlib
import sys


def run(make, check):
    verb, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    {"make": make, "check": check}[verb](folder)


def at_once(*tasks):
    """Runs tasks, each a function with its arguments, in processes of their own."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=task[0], args=task[1:]) for task in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    codes = [process.exitcode for process in processes]
    assert not any(codes), f"processes ended with {codes}"
