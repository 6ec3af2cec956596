# SPDX-License-Identifier: Apache-2.0
"""DLIO: the epochs of a workload that it emulates, with how busy the accelerator was in each.

DLIO runs as it is, from its package, with a workload of its own: it generates the files, reads them
with the framework that the workload names, waits for each batch as long as the accelerator would
compute, and reports the accelerator's utilization (AU).
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from job import run

PROGRAM = pathlib.Path(sys.executable).parent / "dlio_benchmark"


def dlio(folder, workload, settings):
    """Has DLIO do what the settings say; returns its summary, which it writes of a training."""
    with tempfile.TemporaryDirectory(prefix="dlio-") as name:
        place = pathlib.Path(name)
        # For each file it has an index written, by a program of DALI and for its reader alone.
        (place / "tfrecord2idx").symlink_to("/bin/true")
        settings |= {
            "dataset.data_folder": folder.resolve(),
            "checkpoint.checkpoint_folder": place / "checkpoints",
            "output.folder": place,
        }
        command = [PROGRAM, f"workload={workload}", f"hydra.run.dir={place}"]
        command += [f"++workload.{name}={value}" for name, value in settings.items()]
        path = f"{place}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PATH": path}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stdout + done.stderr)
        summary = place / "summary.json"
        return json.loads(summary.read_text()) if summary.exists() else None


def prepare(folder, workload, files, samples):
    settings = {
        "workflow.generate_data": True,
        "workflow.train": False,
        "dataset.num_files_train": files,
        "dataset.num_samples_per_file": samples,
    }
    dlio(folder, workload, settings)
    # It looks into this folder also when it evaluates nothing, and a bucket has no empty ones.
    (folder / "valid" / "nothing").touch()


def read(folder, workload, samples, batch, batch_s, epochs):
    settings = {
        "dataset.num_files_train": len(list((folder / "train").iterdir())),
        "dataset.num_samples_per_file": samples,
        "reader.batch_size": batch,
        "train.computation_time": batch_s,
        "train.epochs": epochs,
    }
    metric = dlio(folder, workload, settings)["metric"]
    shares = enumerate(metric["train_au_percentage"], start=1)
    rates = metric["train_throughput_samples_per_second"]
    return {f"AU {epoch} %": share for epoch, share in shares} | {"images/s": rates[0]}


if __name__ == "__main__":
    run(prepare, read)
