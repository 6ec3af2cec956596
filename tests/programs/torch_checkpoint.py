# SPDX-License-Identifier: Apache-2.0
"""PyTorch: checkpoints of a training job, the usual way and in shards of several processes."""

import os
import shutil

import torch
from program import at_once, run
from torch.utils.data import DataLoader, TensorDataset

STEPS = 6
KEPT = 3
RANKS = 2


def start():
    torch.manual_seed(5)
    model = torch.nn.Sequential(
        torch.nn.Linear(512, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 4)
    )
    return model, torch.optim.Adam(model.parameters(), lr=0.01)


def train(model, optimizer, step):
    torch.manual_seed(step)
    data = TensorDataset(torch.randn(32, 512), torch.randint(0, 4, (32,)))
    for inputs, labels in DataLoader(data, batch_size=16):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def save(folder, model, optimizer, step):
    """Nobody sees half of a checkpoint: it gets its name when it is there."""
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, folder / "unfinished.pt")
    os.replace(folder / "unfinished.pt", folder / f"step-{step}.pt")
    (folder / "latest.new").write_text(f"step-{step}.pt")
    os.replace(folder / "latest.new", folder / "latest")
    old = folder / f"step-{step - KEPT}.pt"
    if old.exists():
        old.unlink()


def load(folder):
    state = torch.load(folder / (folder / "latest").read_text())
    model, optimizer = start()
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return model, optimizer, state["step"]


def tensors(rank):
    torch.manual_seed(rank)
    return {f"layer.{number}": torch.randn(256, 1024) * number for number in range(20)}


def shard(folder, rank):
    with open(folder / f"rank-{rank}.distcp", "wb") as file:
        torch.save(tensors(rank), file)
        file.flush()
        os.fsync(file.fileno())


def save_shards(folder):
    """All processes write into a folder that gets its name when the last one is done."""
    unfinished = folder / "sharded.unfinished"
    unfinished.mkdir()
    at_once(*[(shard, unfinished, rank) for rank in range(RANKS)])
    (unfinished / ".metadata").write_text(str(RANKS))
    if (folder / "sharded").exists():
        shutil.rmtree(folder / "sharded")
    os.rename(unfinished, folder / "sharded")


def make(folder):
    torch.set_num_threads(1)
    model, optimizer = start()
    for step in range(STEPS):
        train(model, optimizer, step)
        save(folder, model, optimizer, step)
        if step == 2:
            # The job is killed and goes on from its last checkpoint.
            model, optimizer, found = load(folder)
            assert found == step, found
    for _ in range(2):
        save_shards(folder)


def check(folder):
    torch.set_num_threads(1)
    names = sorted(path.name for path in folder.iterdir())
    kept = [f"step-{step}.pt" for step in range(STEPS - KEPT, STEPS)]
    assert names == ["latest", "sharded", *kept], names
    model, optimizer = start()
    for step in range(STEPS):
        train(model, optimizer, step)
    found, _, step = load(folder)
    assert step == STEPS - 1, step
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, found.state_dict()[name]), name
    assert (folder / "sharded" / ".metadata").read_text() == str(RANKS)
    for rank in range(RANKS):
        found = torch.load(folder / "sharded" / f"rank-{rank}.distcp")
        expected = tensors(rank)
        assert found.keys() == expected.keys(), rank
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), (rank, name)


if __name__ == "__main__":
    run(make, check)
