# SPDX-License-Identifier: Apache-2.0
"""TensorFlow: event files that grow while somebody looks at them, and checkpoints that rotate."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import tensorflow
from program import run
from tensorflow.python.summary.summary_iterator import summary_iterator

STEPS = 40
KEPT = 2


def values(folder):
    """Returns what TensorBoard would show now: all whole records of the event files."""
    found = {}
    for path in sorted((folder / "events").iterdir()):
        try:
            for event in summary_iterator(str(path)):
                for value in event.summary.value:
                    found[event.step] = float(tensorflow.make_ndarray(value.tensor))
        except tensorflow.errors.DataLossError:
            pass  # The record is just being written.
    return found


def variable(step):
    return tensorflow.Variable(tensorflow.fill((256, 256), float(step)))


def make(folder):
    writer = tensorflow.summary.create_file_writer(str(folder / "events"))
    weights = variable(0)
    checkpoint = tensorflow.train.Checkpoint(weights=weights)
    manager = tensorflow.train.CheckpointManager(checkpoint, str(folder / "checkpoints"), KEPT)
    for step in range(STEPS):
        with writer.as_default(step=step):
            tensorflow.summary.write("loss", step / 2)
        if step % 10 == 9:
            writer.flush()
            found = values(folder)
            assert found == {step: step / 2 for step in range(step + 1)}, found
            weights.assign(variable(step))
            manager.save(step)
    writer.close()


def check(folder):
    assert values(folder) == {step: step / 2 for step in range(STEPS)}
    restored = variable(0)
    checkpoint = tensorflow.train.Checkpoint(weights=restored)
    latest = tensorflow.train.latest_checkpoint(str(folder / "checkpoints"))
    checkpoint.restore(latest).assert_consumed()
    assert float(restored[255, 255]) == STEPS - 1
    saved = [path for path in (folder / "checkpoints").iterdir() if path.suffix == ".index"]
    assert len(saved) == KEPT, saved


if __name__ == "__main__":
    run(make, check)
