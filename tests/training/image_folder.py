# SPDX-License-Identifier: Apache-2.0
"""PyTorch: an ImageFolder read by a DataLoader with four workers, in random order."""

import numpy
import torch
from job import digest, run
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

CLASSES = 8
IMAGES = 40
SIDE = 96


def prepare(folder):
    random = numpy.random.default_rng(1)
    for label in range(CLASSES):
        place = folder / f"class-{label}"
        place.mkdir(parents=True)
        for index in range(IMAGES):
            pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).save(place / f"{index:04}.png")
            yield label, digest(pixels.tobytes())


def pixels_of(image):
    return torch.from_numpy(numpy.array(image))


def epoch(folder, number):
    torch.manual_seed(number)
    images = ImageFolder(folder, transform=pixels_of)
    for pixels, labels in DataLoader(images, batch_size=16, shuffle=True, num_workers=4):
        for one, label in zip(pixels, labels, strict=True):
            yield int(label), digest(one.numpy().tobytes())


if __name__ == "__main__":
    run(prepare, epoch)
