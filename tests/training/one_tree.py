# SPDX-License-Identifier: Apache-2.0
"""TensorFlow: the shards of `tfrecord` from each of several directories, all checked alike.

`one_tree.py MANIFEST FOLDER...` reads each folder through tf.data and compares every record
with the manifest that `tfrecord.py prepare` wrote. It answers each folder with a line.
"""

import collections
import json
import pathlib
import sys

import tfrecord


def main():
    samples = json.loads(pathlib.Path(sys.argv[1]).read_text())
    expected = collections.Counter(tuple(sample) for sample in samples)
    for folder in sys.argv[2:]:
        found = collections.Counter(tfrecord.epoch(folder, 1))
        if found != expected:
            missing, extra = expected - found, found - expected
            sys.exit(f"{folder}: {missing.total()} records missing, {extra.total()} wrong")
        print(f"{folder}: {found.total()} records are right", flush=True)


if __name__ == "__main__":
    main()
