"""How fast the processor is, and how much of it each stage uses."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.flop_counter import FlopCounterMode

from helpers import images, labels, models, paths, training
from helpers.datasets import FaceAgeDataset, make_loader, mild_augmentation

HERE = Path(__file__).parent
DEVICE = torch.device("cpu")
MEMORY = 64 * 2**20  # float32 numbers: four times what the largest caches hold


def times(work, repeat=7):
    """Return the seconds of `repeat` calls of `work`, after one that is not counted."""
    work()
    measured = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        measured.append(time.perf_counter() - started)
    return np.array(measured)


def rates():
    """Return the largest measured rates: `{torch.bfloat16: FLOP/s, torch.float32: FLOP/s}` and bytes/s of memory."""
    flops = {}
    for kind in (torch.bfloat16, torch.float32):
        one, other = torch.randn(2, 2048, 2048).to(kind)
        flops[kind] = 2 * 2048**3 / np.median(times(lambda one=one, other=other: one @ other, 9))
    source, target = torch.zeros(2, MEMORY // 4)
    return flops, 2 * 4 * len(source) / np.median(times(lambda: target.copy_(source)))


def trainer(model, batch_size, kind=torch.bfloat16):
    """Return a function that trains `model` on one random batch in memory, one step a call, and the FLOP of a step."""
    model = model.to(memory_format=torch.channels_last).train()
    batch = torch.randn(batch_size, 3, 128, 128).to(memory_format=torch.channels_last)
    ages = torch.full((batch_size,), 35.0)
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            loss = training.age_loss(model(batch), ages)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    with FlopCounterMode(display=False) as counter:
        step()
    return step, counter.get_total_flops()


def networks(flops):
    """Return rows on the share of the matrix-product rate that a training step reaches, and on bfloat16."""
    rows = []
    makes = {"SimpleCNN": (models.SimpleCNN, 32), "ResNet-18": (lambda: models.resnet(31, False, "small")[0], 64)}
    for name, (make, batch_size) in makes.items():
        step, work = trainer(make(), batch_size)
        slow, _ = trainer(make(), batch_size, torch.float32)
        fast, plain = times(step), times(slow, 5)
        rows.append((f"{name}: share of the bfloat16 matrix-product rate", work / fast / flops[torch.bfloat16], ""))
        rows.append((f"{name}: float32 step against bfloat16 step", np.median(plain) / fast, ""))
        rows.append((f"{name}: step of {batch_size} pictures", fast, "s"))
    return rows


def faces():
    """Return the shipped faces: the folder, the paths and the ages."""
    table = labels.read_labels(paths.ROOT / "data" / "labels.csv")
    return paths.DEMO, table["path"], table["age"].to_numpy()


def epochs():
    """Return rows on an epoch of the SimpleCNN from the cache against the same steps on a batch in memory."""
    root, names, ages = faces()
    prepared = images.prepare_all(root, names)
    model = models.SimpleCNN().to(memory_format=torch.channels_last)
    averaged, optimiser = AveragedModel(model), torch.optim.AdamW(model.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimiser)
    rows = []
    for workers in (0, 1):
        loader = make_loader(FaceAgeDataset(prepared, ages, augment=mild_augmentation()), 32, True, workers=workers)
        memory, seconds = [next(iter(loader))] * len(loader), {"data": [], "memory": []}
        for _ in range(5):  # by turns, so that both meet the same disturbances
            for name, batches in (("data", loader), ("memory", memory)):
                started = time.perf_counter()
                training._train_epoch(model, averaged, batches, optimiser, schedule, DEVICE, "")
                seconds[name].append(time.perf_counter() - started)
        ratio = np.array(seconds["data"][1:]) / seconds["memory"][1:]
        kind = "loaded between the steps" if workers == 0 else "loaded by a process beside"
        rows.append((f"epoch on data against in memory, {kind}", ratio, ""))
        if workers == 0:
            train_epoch = np.median(seconds["memory"])
            rows.append(("loading and augmenting a picture", 1e3 * times(lambda: list(loader)) / len(ages), "ms"))  # noqa: B023
    return rows, train_epoch


def cleaning(train_epoch, epochs=10):
    """Return rows on ten epochs with the cache against cleaning every picture in every epoch, one after the other.

    Made once on two cores instead of ten times on one, twenty is what can be won at most, had loading no cost.
    """
    root, names, ages = faces()
    augment, made, loaded, naive = mild_augmentation(), [], [], []
    version = images.VERSION
    for _ in range(3):
        images.VERSION += 1000  # another setting, so that the cache is made anew
        begun, started = time.time(), time.perf_counter()
        prepared = images.prepare_all(root, names)
        made.append(time.perf_counter() - started)
        loader = make_loader(FaceAgeDataset(prepared, ages, augment=augment), 32, True)
        started = time.perf_counter()
        for _ in range(epochs):
            for _ in loader:
                pass
        loaded.append(time.perf_counter() - started)
        for file in (paths.run_dir() / "cache").glob("faces-*.npy"):
            if file.stat().st_mtime >= begun:  # only what this made
                file.unlink()
        started = time.perf_counter()
        for name in names:  # one epoch
            picture = images.prepare(images.read_image(root / name))
            FaceAgeDataset(picture[None], [0], augment=augment)[0]
        naive.append(epochs * (time.perf_counter() - started))
    images.VERSION = version
    made, loaded, naive = np.array(made), np.array(loaded), np.array(naive)
    training_time = epochs * train_epoch
    return [
        ("ten epochs of pictures, cleaned every time against once", naive / (made + loaded), ""),
        ("the same when the cache is there already", naive / loaded, ""),
        ("ten epochs of the SimpleCNN, cleaned every time against once",
         (naive + training_time) / (made + loaded + training_time), ""),
        ("preparing a picture for the cache", 1e3 * made / len(names), "ms"),
    ]  # fmt: skip


def processes():
    """Return a row on the speed-up of two processes over one, each with one thread: 2 would be ideal."""
    seconds = {}
    for count in (1, 2):
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(paths.ROOT), "TQDM_DISABLE": "1"}
        line = [sys.executable, *torchrun, str(HERE / "share.py")]
        ended = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        seconds[count] = np.array(ended.stdout.split(), float)[1:]
    return [("two processes against one, share of the ideal speed-up", np.median(seconds[1]) / seconds[2] / 2, "")]


def stages(prepared, ages):
    """Return, for the roofline, `name → (FLOP, bytes, seconds)` of the stages of a training step of the SimpleCNN."""
    batch_size, found = 32, {}
    model = models.SimpleCNN()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)] + [model.head[2]]
    sides = (128, 64, 32, 16, None)
    for i, (layer, side) in enumerate(zip(layers, sides)):
        shape = (batch_size, layer.in_channels, side, side) if side else (batch_size, layer.in_features)
        batch = torch.randn(shape).to(torch.bfloat16)
        batch = batch.to(memory_format=torch.channels_last) if side else batch
        batch.requires_grad_(i > 0)
        layer = layer.to(torch.bfloat16)
        gradient = torch.ones_like(layer(batch))

        def work(layer=layer, batch=batch, gradient=gradient):
            layer(batch).backward(gradient)

        with FlopCounterMode(display=False) as counter:
            work()
        passes = 3 if i > 0 else 2  # forward, gradient of the weights, gradient of the input
        moved = passes * 2 * (batch.numel() + gradient.numel() + layer.weight.numel())
        name = f"convolution {i + 1}" if side else "linear 16,384 → 512"
        found[name] = counter.get_total_flops(), moved, np.median(times(work))
    weights = nn.Parameter(torch.randn(8_778_049))
    weights.grad = torch.randn_like(weights)
    optimiser = torch.optim.AdamW([weights], fused=True)
    # A weight, its gradient and two moments are read, three of them written; about 12 operations.
    found["AdamW"] = 12 * weights.numel(), 7 * 4 * weights.numel(), np.median(times(optimiser.step))
    data = FaceAgeDataset(prepared, ages, augment=mild_augmentation())
    rows, pixels = list(range(batch_size)), batch_size * 3 * 128 * 128
    # A byte is read and written as it is moved, relit and normalised, to four bytes; about 4 operations.
    found["load and augment"] = 4 * pixels, 10 * pixels, np.median(times(lambda: data[rows]))
    return found
