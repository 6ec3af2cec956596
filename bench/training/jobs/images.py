# SPDX-License-Identifier: Apache-2.0
"""Pictures that compress like photographs: each another one, and the same ones in every run."""

import numpy

WIDTH, HEIGHT = 500, 375
# With these two, a JPEG has about 104 KB, the mean of ImageNet's training set.
QUALITY = 90
NOISE = 36


class Images:
    """Makes pixels from a number: smooth areas, with noise on top."""

    def __init__(self):
        random = numpy.random.default_rng(7)
        # Taken from anywhere in a large piece: making new noise for each picture takes longer.
        self.noise = random.integers(-NOISE, NOISE + 1, 1 << 22, dtype=numpy.int16)

    def pixels(self, number):
        random = numpy.random.default_rng(number)
        coarse = random.integers(NOISE, 256 - NOISE, (8, 10, 3), dtype=numpy.int16)
        smooth = coarse.repeat(50, axis=0).repeat(50, axis=1)[:HEIGHT, :WIDTH]
        count = HEIGHT * WIDTH * 3
        start = int(random.integers(0, len(self.noise) - count))
        noise = self.noise[start : start + count].reshape(HEIGHT, WIDTH, 3)
        return (smooth + noise).astype(numpy.uint8)
