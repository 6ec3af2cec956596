# SPDX-License-Identifier: Apache-2.0
"""The frame of a training job that a test drives.

`JOB.py prepare DATA MANIFEST` writes a data set and a manifest of what is in it.
`JOB.py train DATA MANIFEST` runs one epoch for each line on its standard input, checks every sample
against the manifest, and answers each epoch with a line `epoch N: COUNT samples are right`.
"""

import collections
import hashlib
import json
import pathlib
import sys


def digest(content):
    return hashlib.sha256(content).hexdigest()


def run(prepare, epoch):
    """Runs the half of a job that the command line asks for.

    `prepare(folder)` writes files and returns the samples in them, as pairs of label and digest.
    `epoch(folder, number)` yields the samples that it read, in any order.
    """
    verb, data, manifest = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    if verb == "prepare":
        manifest.write_text(json.dumps([list(sample) for sample in prepare(data)]))
        return
    expected = collections.Counter(tuple(sample) for sample in json.loads(manifest.read_text()))
    for number, _ in enumerate(sys.stdin, start=1):
        found = collections.Counter(tuple(sample) for sample in epoch(data, number))
        if found != expected:
            missing, extra = expected - found, found - expected
            sys.exit(f"epoch {number}: {missing.total()} samples missing, {extra.total()} wrong")
        print(f"epoch {number}: {found.total()} samples are right", flush=True)
