# SPDX-License-Identifier: Apache-2.0
"""The storage of a run: a real S3 server on this machine, as slow and as far away as it is told."""

import json
import os
import subprocess


class Rig:
    """The process `rig` of the test crate; ends when the block that uses it does."""

    def __init__(self, binary):
        self.process = subprocess.Popen(
            [binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.place = json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    @property
    def uri(self):
        return self.place["uri"]

    def put(self, folder):
        """Copies a folder into the bucket; returns its bytes."""
        return int(self._ask(f"put {folder}"))

    def set_speed(self, latency_ms, bandwidth):
        self._ask(f"speed {int(latency_ms)} {int(bandwidth)}")

    def requests(self):
        """Returns how many requests have come in."""
        return int(self._ask("requests"))

    def flags(self):
        """Returns the flags of `forebay mount` that lead here."""
        return ["--endpoint", self.place["endpoint"], "--region", self.place["region"]]

    def environment(self):
        """Returns the environment in which Forebay finds its credentials."""
        return os.environ | {
            "AWS_ACCESS_KEY_ID": self.place["access_key"],
            "AWS_SECRET_ACCESS_KEY": self.place["secret_key"],
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the storage ended at '{line}'")
        return answer.strip()
