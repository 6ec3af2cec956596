# SPDX-License-Identifier: Apache-2.0
"""TensorFlow: ImageNet as TFRecord files, read the way tf_cnn_benchmarks reads them.

`prepare` writes the set that tf_cnn_benchmarks expects. `read` runs tf_cnn_benchmarks itself,
unmodified, from the folder `scripts/tf_cnn_benchmarks` of a checkout. Without one it runs a
pipeline of ours of the same shape: 10 files at once, 10,000 records that are shuffled, decoding,
batches.
"""

import os
import pathlib
import re
import subprocess
import sys
import time

from job import add, run

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "")

SHUFFLED = 10_000
FILES_AT_ONCE = 10


def prepare(folder, images, shards):
    import tensorflow as tf
    from images import QUALITY, Images

    made, count, shards = Images(), int(images), int(shards)

    def example(number):
        jpeg = tf.io.encode_jpeg(made.pixels(number), quality=QUALITY).numpy()
        label = tf.train.Int64List(value=[1 + number % 1000])
        texts = {"image/encoded": jpeg, "image/class/text": b"a class", "image/format": b"JPEG"}
        feature = {
            name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
            for name, text in texts.items()
        }
        feature["image/class/label"] = tf.train.Feature(int64_list=label)
        return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()

    for shard in range(shards):
        path = folder / f"train-{shard:05}-of-{shards:05}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in range(shard, count, shards):
                writer.write(example(number))


def read(folder, model, batch, batches, checkout=""):
    if checkout:
        return tf_cnn_benchmarks(folder, checkout, model, batch, batches)
    return pipeline(folder, int(batch), int(batches))


def tf_cnn_benchmarks(folder, checkout, model, batch, batches):
    """Returns the images a second that it prints, and the time until its first batch is done."""
    command = [sys.executable, "-u", "tf_cnn_benchmarks.py", f"--data_dir={folder.resolve()}"]
    command += ["--data_name=imagenet", f"--model={model}", f"--batch_size={batch}"]
    command += [f"--num_batches={batches}", "--num_warmup_batches=1"]
    if not os.environ["CUDA_VISIBLE_DEVICES"]:
        command += ["--device=cpu", "--data_format=NHWC", "--local_parameter_device=cpu"]
    process = subprocess.Popen(
        command,
        cwd=pathlib.Path(checkout),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said, times, rate = [], {}, None
    for line in process.stdout:
        said.append(line)
        for mark in ("Initializing graph", "Done warm up"):
            if mark in line:
                times[mark] = time.monotonic()
        if found := re.search(r"total images/sec: ([0-9.]+)", line):
            rate = float(found[1])
    if process.wait() != 0 or rate is None:
        sys.exit("".join(said))
    # The pipeline starts with the graph, and fills its shuffle buffer before the first batch comes;
    # the images a second leave that out.
    fill = times["Done warm up"] - times["Initializing graph"]
    return {
        "fill s": fill,
        "images/s": rate,
        "job s": fill + int(batch) * int(batches) / rate,
    }


def pipeline(folder, batch, batches):
    import tensorflow as tf

    schema = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}

    def decode(record):
        jpeg = tf.io.parse_single_example(record, schema)["image/encoded"]
        pixels = tf.io.decode_jpeg(jpeg, channels=3, ratio=4)
        return tf.image.resize(pixels, (64, 64))

    names = sorted(str(path) for path in folder.glob("train-*-of-*"))
    data = tf.data.Dataset.from_tensor_slices(names).shuffle(len(names))
    data = data.interleave(
        tf.data.TFRecordDataset, cycle_length=FILES_AT_ONCE, num_parallel_calls=FILES_AT_ONCE
    )
    data = data.shuffle(SHUFFLED).repeat().map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    taken = iter(data.batch(batch).prefetch(2))
    start = time.monotonic()
    next(taken)
    filled = time.monotonic()
    for _ in range(batches):
        next(taken)
    rate = batch * batches / (time.monotonic() - filled)
    total = 0
    for record in tf.data.TFRecordDataset(names).as_numpy_iterator():
        total = add(total, record)
    return {
        "fill s": filled - start,
        "images/s": rate,
        "job s": filled - start + batch * batches / rate,
        "sum": total,
    }


if __name__ == "__main__":
    run(prepare, read)
