# SPDX-License-Identifier: Apache-2.0
"""TensorFlow: shards of records read through tf.data, interleaved, shuffled and in parallel."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy  # noqa: E402
import tensorflow as tf  # noqa: E402
from job import digest, run  # noqa: E402

SHARDS = 6
RECORDS = 200
SCHEMA = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}


def prepare(folder):
    random = numpy.random.default_rng(2)
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        path = folder / f"train-{shard:05}-of-{SHARDS:05}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for index in range(RECORDS):
                image, label = random.bytes(int(random.integers(1_000, 20_000))), index % 10
                feature = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
                yield label, digest(image)


def epoch(folder, number):
    shards = tf.data.Dataset.list_files(f"{folder}/*.tfrecord", shuffle=True, seed=number)
    records = shards.interleave(
        tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE
    )
    records = records.map(
        lambda record: tf.io.parse_single_example(record, SCHEMA),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    batches = records.shuffle(256, seed=number).batch(32).prefetch(tf.data.AUTOTUNE)
    for batch in batches.as_numpy_iterator():
        for image, label in zip(batch["image"], batch["label"], strict=True):
            yield int(label), digest(image)


if __name__ == "__main__":
    run(prepare, epoch)
