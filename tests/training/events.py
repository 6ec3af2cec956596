# SPDX-License-Identifier: Apache-2.0
"""TensorFlow: event files of TensorBoard that are read while they are written, and Keras weights.

`events.py make FOLDER` writes them. `events.py check FOLDER` reads all of it.
"""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import pathlib  # noqa: E402
import sys  # noqa: E402

import numpy  # noqa: E402
import tensorflow as tf  # noqa: E402

STEPS = 30


def read(folder):
    """Returns the steps and values of all events so far."""
    found = []
    for path in sorted(folder.glob("events.*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.append((event.step, float(tf.make_ndarray(value.tensor))))
    return found


def wanted(count):
    return [(step, step / 2) for step in range(count)]


def model():
    tf.keras.utils.set_random_seed(7)
    return tf.keras.Sequential([tf.keras.Input((50,)), tf.keras.layers.Dense(400)])


def make(folder):
    writer = tf.summary.create_file_writer(str(folder / "logs"))
    with writer.as_default():
        for step in range(STEPS):
            tf.summary.scalar("loss", step / 2, step)
            if step % 10 == 9:
                writer.flush()
                assert read(folder / "logs") == wanted(step + 1), step
    writer.close()
    for _ in range(2):
        model().save_weights(folder / "kept.weights.h5")
        model().save(folder / "kept.keras")


def check(folder):
    assert read(folder / "logs") == wanted(STEPS)
    wanted_weights = model().get_weights()
    loaded = tf.keras.Sequential([tf.keras.Input((50,)), tf.keras.layers.Dense(400)])
    loaded.load_weights(folder / "kept.weights.h5")
    whole = tf.keras.models.load_model(folder / "kept.keras")
    for found in (loaded.get_weights(), whole.get_weights()):
        assert all(map(numpy.array_equal, found, wanted_weights))


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))
