# SPDX-License-Identifier: Apache-2.0
"""PyTorch: one epoch of a DataLoader over an image folder, over tar shards, or over Parquet files.

The accelerator is emulated: each batch takes a stated time, in which nothing is computed. The time
that it waits for its next batch is what the storage costs. Images are read and summed, not decoded:
two cores decode less than an accelerator eats.
"""

import io
import time

import pyarrow
import torch
import webdataset
from images import QUALITY, Images
from job import add, run
from PIL import Image
from pyarrow.parquet import ParquetFile, write_table
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision.datasets import ImageFolder

CLASSES = 50
# Rows of a Parquet file that are read at once.
GROUP = 50


def jpegs(count):
    made = Images()
    for number in range(count):
        jpeg = io.BytesIO()
        Image.fromarray(made.pixels(number)).save(jpeg, "JPEG", quality=QUALITY)
        yield number, jpeg.getvalue()


def prepare(folder, images, shard):
    """Writes the same images in all three forms."""
    places = {kind: folder / kind for kind in ("folder", "shards", "parquet")}
    for place in places.values():
        place.mkdir()
    for label in range(CLASSES):
        (places["folder"] / f"class-{label:02}").mkdir()
    held = []
    for number, jpeg in jpegs(int(images)):
        label = number % CLASSES
        (places["folder"] / f"class-{label:02}" / f"{number:06}.jpg").write_bytes(jpeg)
        held.append((number, label, jpeg))
        if len(held) == int(shard):
            write_shard(places, held)
            held = []
    if held:
        write_shard(places, held)


def write_shard(places, samples):
    name = f"{samples[0][0]:06}"
    with webdataset.TarWriter(str(places["shards"] / f"train-{name}.tar")) as tar:
        for number, label, jpeg in samples:
            tar.write({"__key__": f"{number:06}", "jpg": jpeg, "cls": label})
    numbers, labels, contents = zip(*samples, strict=True)
    columns = {"number": numbers, "label": labels, "image": contents}
    write_table(
        pyarrow.table(columns),
        places["parquet"] / f"train-{name}.parquet",
        row_group_size=GROUP,
        compression="none",
    )


def bytes_of(path):
    with open(path, "rb") as file:
        return file.read()


class Parquet(IterableDataset):
    """The groups of all files in random order, shared among the workers of a loader."""

    def __init__(self, folder, epoch):
        self.epoch = epoch
        self.files = sorted(folder.glob("*.parquet"))

    def __iter__(self):
        worker = get_worker_info()
        order = torch.randperm(len(self.files), generator=torch.Generator().manual_seed(self.epoch))
        for index in order[worker.id :: worker.num_workers]:
            with ParquetFile(self.files[index]) as file:
                for group in torch.randperm(file.num_row_groups).tolist():
                    rows = file.read_row_group(group, columns=["label", "image"])
                    images, labels = rows["image"].chunk(0), rows["label"].to_pylist()
                    for image, label in zip(images, labels, strict=True):
                        yield image.as_buffer(), label


def dataset(folder, kind, epoch):
    if kind == "folder":
        return ImageFolder(folder, loader=bytes_of)
    if kind == "shards":
        shards = sorted(str(path) for path in folder.glob("*.tar"))
        data = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=epoch)
        return data.shuffle(200).to_tuple("jpg", "cls")
    return Parquet(folder, epoch)


def total_of(samples):
    """Puts a batch together, in a worker."""
    total = 0
    for content, _ in samples:
        total = add(total, content)
    return len(samples), sum(len(content) for content, _ in samples), total


def read(folder, kind, batch, batch_ms, workers, epoch):
    torch.manual_seed(int(epoch))
    data = dataset(folder, kind, int(epoch))
    is_folder = kind == "folder"
    loader = DataLoader(
        data,
        batch_size=int(batch),
        shuffle=True if is_folder else None,
        num_workers=int(workers),
        collate_fn=total_of,
    )
    step = float(batch_ms) / 1000
    count = size = total = 0
    busy = 0.0
    start = time.monotonic()
    for images, length, part in loader:
        count, size, total = count + images, size + length, (total + part) % (1 << 64)
        began = time.monotonic()
        time.sleep(step * images / int(batch))
        busy += time.monotonic() - began
    took = time.monotonic() - start
    return {
        "epoch s": took,
        "images/s": count / took,
        "MB/s": size / 1e6 / took,
        "busy %": 100 * busy / took,
        "sum": total,
    }


if __name__ == "__main__":
    run(prepare, read)
