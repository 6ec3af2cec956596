# SPDX-License-Identifier: Apache-2.0
"""PyTorch: checkpoints that a job saves, replaces and loads, as files and as directories of shards.

`checkpoint.py make FOLDER` trains and saves. `checkpoint.py check FOLDER` loads all of it.
"""

import os
import pathlib
import sys

import torch

try:
    from torch.distributed import checkpoint as shards
except ImportError:
    # Where the releases before 2.0 have it.
    from torch.distributed._shard import checkpoint as shards

STEPS = 4
WIDTH = 600
VALUES = 100_000


def model_of(step):
    torch.manual_seed(step)
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, 10))


def state_of(step):
    model = model_of(step)
    return {f"model.{name}": value for name, value in model.state_dict().items()}


def make(folder):
    for step in range(STEPS):
        torch.save({"step": step, "state": state_of(step)}, folder / "latest.pt")
        torch.save({"step": step, "state": state_of(step)}, folder / "unfinished")
        os.replace(folder / "unfinished", folder / "best.pt")
        torch.save(state_of(step), folder / f"old-{step}.pt", _use_new_zipfile_serialization=False)
        assert torch.load(folder / "latest.pt")["step"] == step
        # Published by a rename, as those do who let nobody see a half of it.
        at = folder / f"shards-{step}.unfinished"
        at.mkdir()
        shards.save_state_dict(state_of(step), shards.FileSystemWriter(str(at)), no_dist=True)
        at.rename(folder / f"shards-{step}")
    values = torch.from_file(str(folder / "mapped"), shared=True, size=VALUES)
    values.copy_(torch.arange(VALUES))
    values[100:200] = -1


def same(found, step):
    wanted = state_of(step)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def check(folder):
    for name in ("latest.pt", "best.pt"):
        found = torch.load(folder / name)
        assert found["step"] == STEPS - 1
        same(found["state"], STEPS - 1)
    for step in range(STEPS):
        same(torch.load(folder / f"old-{step}.pt"), step)
        found = {name: torch.zeros_like(value) for name, value in state_of(step).items()}
        reader = shards.FileSystemReader(str(folder / f"shards-{step}"))
        shards.load_state_dict(found, reader, no_dist=True)
        same(found, step)
    wanted = torch.arange(VALUES, dtype=torch.float32)
    wanted[100:200] = -1
    values = torch.from_file(str(folder / "mapped"), shared=False, size=VALUES)
    assert torch.equal(values, wanted)


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))
