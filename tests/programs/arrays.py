# SPDX-License-Identifier: Apache-2.0
"""zarr, NumPy's memory mappings and safetensors: arrays made, grown and changed in place."""

import numpy
import safetensors
import safetensors.numpy
import zarr
from program import run

SHAPE = (1500, 400)


def table(seed, shape=SHAPE):
    return numpy.random.default_rng(seed).integers(0, 1 << 30, shape, dtype=numpy.int32)


def make(folder):
    group = zarr.open_group(folder / "group.zarr", mode="w")
    array = group.create_array("table", shape=SHAPE, chunks=(500, 100), dtype="int32")
    array[:] = table(1)
    array.append(table(2))
    array[10:20, :] = table(3, (10, 400))
    group.attrs["step"] = 7

    mapped = numpy.memmap(folder / "mapped.bin", numpy.int32, mode="w+", shape=SHAPE)
    mapped[:] = table(4)
    mapped.flush()
    del mapped
    mapped = numpy.memmap(folder / "mapped.bin", numpy.int32, mode="r+", shape=SHAPE)
    mapped[700:710] = table(5, (10, 400))
    mapped.flush()
    numpy.save(folder / "saved.npy", table(6))
    saved = numpy.load(folder / "saved.npy", mmap_mode="r+")
    saved[-1] = 1
    saved.flush()

    for step in range(3):
        tensors = {"weight": table(10 + step), "bias": table(20 + step, (400,))}
        safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"step": str(step)})


def check(folder):
    grown = numpy.concatenate([table(1), table(2)])
    grown[10:20] = table(3, (10, 400))
    group = zarr.open_group(folder / "group.zarr", mode="r")
    assert group.attrs["step"] == 7
    assert numpy.array_equal(group["table"][:], grown)

    wanted = table(4)
    wanted[700:710] = table(5, (10, 400))
    mapped = numpy.memmap(folder / "mapped.bin", numpy.int32, mode="r", shape=SHAPE)
    assert numpy.array_equal(mapped, wanted)
    wanted = table(6)
    wanted[-1] = 1
    assert numpy.array_equal(numpy.load(folder / "saved.npy", mmap_mode="r"), wanted)

    with safetensors.safe_open(folder / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"step": "2"}
        assert numpy.array_equal(file.get_tensor("weight"), table(12))
        assert numpy.array_equal(file.get_slice("weight")[100:200], table(12)[100:200])
        assert numpy.array_equal(file.get_tensor("bias"), table(22, (400,)))


if __name__ == "__main__":
    run(make, check)
