# SPDX-License-Identifier: Apache-2.0
"""The frame of a job that is measured.

`JOB.py prepare FOLDER NAME=VALUE...` writes a data set. `JOB.py read FOLDER NAME=VALUE...` reads it
as a training job would, and ends with a line of JSON: the figures, and a sum of all that was read,
which must be the same wherever it is read from. Each works by itself, on any folder.
"""

import json
import pathlib
import sys
import zlib


def run(prepare, read):
    """Runs the half that the command line asks for, with its settings."""
    verb, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    settings = dict(word.split("=", 1) for word in sys.argv[3:])
    if verb == "prepare":
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder, **settings)
    else:
        print(json.dumps(read(folder, **settings)), flush=True)


def add(total, content):
    """Adds a sample to a sum in which the order does not matter."""
    return (total + zlib.crc32(content)) % (1 << 64)
